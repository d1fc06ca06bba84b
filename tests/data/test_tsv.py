"""Tables of labelled text: the arena's ListOps and Retrieval files, one file alone, and faults by line."""

from pathlib import Path

import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data.listops import TOKENS, evaluate, generate, parse

PARTS = {"basic_train.tsv": 40, "basic_val.tsv": 6, "basic_test.tsv": 8}


def listops(folder: Path) -> Path:
    folder.mkdir()
    rows = generate(54, 5, 40, 0)
    first = 0
    for name, count in PARTS.items():
        lines = ["Source\tTarget"]
        for row in rows[first : first + count]:
            text = " ".join(TOKENS[i] for i in row).replace("[SM", "( [SM").replace("]", "] )")
            lines.append(f"{text}\t{evaluate(row)}")
        (folder / name).write_text("\n".join(lines) + "\n")
        first += count
    return folder


def aan(folder: Path) -> Path:
    folder.mkdir()
    for name, count in (("train", 12), ("eval", 4), ("test", 6)):
        lines = [f"{i % 2}.0\t{i}\t{i + 7}\ttext {i} é\tother {i}, longer" for i in range(count)]
        (folder / f"new_aan_pairs.{name}.tsv").write_text("\r\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_the_arena_s_listops_files(tmp_path: Path) -> None:
    task = open_source(listops(tmp_path / "listops"))
    assert task.kind == "classification"
    assert task.facts == {"classes": [str(i) for i in range(10)], "vocab_size": 15}
    assert task.details["sequences"] == {"train": 40, "valid": 6, "test": 8}
    rows = generate(54, 5, 40, 0)
    for part, first in ((task.train, 0), (task.valid, 40), (task.test, 46)):
        item = part[3]
        assert tuple(item.inputs.tolist()) == rows[first + 3]
        assert item.label == evaluate(rows[first + 3])
    few = open_source(tmp_path / "listops", count=20)
    assert few.details["sequences"]["train"] == 20
    (tmp_path / "listops" / "basic_val.tsv").unlink()
    cut = open_source(tmp_path / "listops").details["sequences"]
    assert cut["train"] + cut["valid"] == 40
    assert cut["valid"] > 0


def test_pairs_of_texts(tmp_path: Path) -> None:
    task = open_source(aan(tmp_path / "tsv_data"), length=7)
    assert task.facts == {"classes": ["0.0", "1.0"], "vocab_size": 256, "pairs": True}
    assert task.details["sequences"] == {"train": 12, "valid": 4, "test": 6}
    item = task.test[5]
    assert (item.first.numpy().astype("u1").tobytes(), item.label) == ("text 5 é".encode()[:7], 1)
    batch = task.collate([task.test[4], task.test[5]])
    assert batch.inputs.shape == (4, 7)
    assert batch.labels.tolist() == [0, 1]
    assert bytes(batch.inputs[3].tolist()) == b"other 5"
    whole = open_source(tmp_path / "tsv_data", tokenizer="chars:1")
    batch = whole.collate([whole.train[1], whole.train[2]])
    assert batch.lengths.tolist() == [8, 15, 8, 15]
    assert torch.equal(batch.inputs[0, 8:], torch.zeros(7, dtype=torch.int64))
    assert whole.details["steps"] == {"least": 8, "most": 16, "mean": pytest.approx(11.59, abs=0.01)}


def test_pairs_of_texts_read_as_one_sequence(tmp_path: Path) -> None:
    task = open_source(aan(tmp_path / "tsv_data"), length=7, joint=True)
    assert task.facts == {"classes": ["0.0", "1.0"], "vocab_size": 257}
    item = task.test[5]
    assert item.inputs.tolist() == [*"text 5 é".encode()[:7], 256, *b"other 5"]
    assert task.details["steps"]["most"] == 15
    assert task.collate([task.test[4], task.test[5]]).labels.tolist() == [0, 1]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="expected two texts a line to read jointly; got one"):
        open_source(listops(tmp_path / "listops"), joint=True)


def test_one_file_is_labelled_where_classes_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "films.tsv"
    path.write_text("".join(f"{'good' if i % 2 else 'bad'}\tfilm {i}\n" for i in range(20)))
    assert open_source(path, length=8).kind == "language"
    task = open_source(path, kind="classification")
    assert task.facts == {"classes": ["bad", "good"], "vocab_size": 256}
    assert task.details["sequences"] == {"train": 12, "valid": 4, "test": 4}
    seen = {bytes(task.train[i].inputs.tolist()): task.train[i].label for i in range(12)}
    assert all(label == int(text.split()[1]) % 2 for text, label in seen.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\tb\tc\td\n", r"line 1: expected a header Source and Target, or 2, 3 or 5 columns; got 4"),
        ("1\tx\n\n0\ty\tz\n", r"line 3: expected 2 columns as above; got 3"),
        ("1\tx\n0\t \n", r"line 2: expected a label and a text; got an empty column"),
        ("\n", r"expected lines of labelled text; got none"),
        ("1\t[MAX 1 2 ]\nx\t3\n", r"line 2: expected a digit as value; got 'x'"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "data.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"data\.tsv.*{words}"):
        open_source(path, kind="classification")


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_bytes(b"1\tx\n0\tol\xe9\n" * 10)
    with pytest.raises(ValueError, match=r"line 2: expected text in UTF-8; got byte 0xe9"):
        open_source(path, kind="classification")
    folder = aan(tmp_path / "pairs")
    (folder / "new_aan_pairs.test.tsv").unlink()
    with pytest.raises(ValueError, match=r"expected a file that ends with test\.tsv; got none"):
        open_source(folder)
    (folder / "a_train.tsv").write_text("")
    with pytest.raises(ValueError, match=r"one \.tsv file to train; got a_train\.tsv, new_aan_pairs"):
        open_source(folder)
    with pytest.raises(ValueError, match="keeps one token at least; got length 0"):
        open_source(folder, length=0)


@pytest.mark.data
def test_the_original_listops_file(data_folder: Path) -> None:
    task = open_source(data_folder / "listops" / "test_d20s.tsv", kind="classification")
    assert sum(task.details["sequences"].values()) == 10_000
    assert task.details["steps"]["most"] <= 939
    for i in range(0, 2000, 40):
        assert evaluate(task.test[i].inputs.tolist()) == task.test[i].label
    assert parse("( ( [MIN 3 ) ] )") == [10, 3, 14]
