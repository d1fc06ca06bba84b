"""Folders of text files by class: the classes, the cut, characters and bytes, and no choice left open."""

from pathlib import Path

import pytest
import torch

from hippodrome import runs
from hippodrome.cli._data import task_of
from hippodrome.config import stack_spec
from hippodrome.data import open_source
from hippodrome.train.settings import TrainSettings

GOOD, BAD = "a fine, fine film\n", "dull; naïve?\n"


def reviews(folder: Path, count: int = 10, parts: tuple[str, ...] = ("",)) -> Path:
    for part in parts:
        for name, text in (("pos", GOOD), ("neg", BAD)):
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(count):
                (place / f"{i}.txt").write_text(text * (1 + i % 3), encoding="utf-8")
    return folder


def test_classes_are_asked_for_and_a_folder_stays_one_text_otherwise(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "films")
    assert open_source(folder, length=8).kind == "language"
    task = open_source(folder, kind="classification")
    assert task.kind == "classification"
    assert task.facts == {"classes": ["neg", "pos"], "vocab_size": 256}
    assert task.details["sequences"] == {"train": 12, "valid": 4, "test": 4}
    item = next(x for x in (task.test[i] for i in range(4)) if x.label == 1)
    assert bytes(item.inputs.tolist()).startswith(GOOD.encode())
    batch = task.collate([task.train[i] for i in range(3)])
    assert batch.inputs.shape[1] == int(batch.lengths.max())
    kinds = "masked_language or encoder or language"
    with pytest.raises(ValueError, match=f"is read as text, for {kinds}; got kind 'classification'"):
        open_source(folder / "pos" / "0.txt", kind="classification")


def test_long_documents_are_cut_and_the_report_says_so(tmp_path: Path) -> None:
    task = open_source(reviews(tmp_path / "films"), kind="classification", length=20)
    assert task.details["cut"] == "12 of 20 to their first 20 tokens"
    assert task.details["steps"]["most"] == 20
    assert "cut" not in open_source(tmp_path / "films", kind="classification").details
    with pytest.raises(ValueError, match="keeps one token at least; got length 0"):
        open_source(tmp_path / "films", kind="classification", length=0)


def test_characters_are_those_frequent_in_the_train_part(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "films", parts=("train", "test"))
    (folder / "test" / "pos" / "0.txt").write_text("zzz film", encoding="utf-8")
    task = open_source(folder, kind="classification", tokenizer="chars:1")
    letters = set(GOOD + BAD)
    assert task.facts["vocab_size"] == len(letters) + 1
    tokenizer = task.tokenizer
    assert tokenizer is not None
    seen = [task.test[i].inputs.tolist() for i in range(20)]
    odd = next(ids for ids in seen if ids[:3] == [0, 0, 0])
    assert tokenizer.decode(odd[3:]) == " film"
    for text in ("naïve?\n", "zzz film", GOOD):
        pieces = [tokenizer.id_to_token(i) for i in tokenizer.encode(text).ids]
        assert "".join(pieces) == "".join(c if c in letters else "\0" for c in text)
    ids = {tuple(tokenizer.encode(text).ids) for text in (GOOD, BAD)}
    assert ids <= {tuple(task.train[i].inputs.tolist()) for i in range(16)}
    often = open_source(folder, kind="classification", tokenizer="chars")
    assert 1 < often.facts["vocab_size"] < task.facts["vocab_size"]
    with pytest.raises(ValueError, match=r"there is none\. Take 'chars:1' or 'bytes'"):
        open_source(folder, kind="classification", tokenizer="chars:9999")
    with pytest.raises(ValueError, match="the times N that one must occur; got 'chars:x'"):
        open_source(folder, kind="classification", tokenizer="chars:x")


def test_what_has_no_label_in_test_is_left_out(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "aclImdb", parts=("train", "test"))
    (folder / "train" / "unsup").mkdir()
    (folder / "train" / "unsup" / "0.txt").write_text("who knows")
    (folder / "train" / "urls_pos.txt").write_text("no review")
    task = open_source(folder, kind="classification")
    assert task.facts["classes"] == ["neg", "pos"]
    assert task.details["left out"] == "unsup: in train, but not in test"
    assert task.details["sequences"] == {"train": 16, "valid": 4, "test": 20}
    assert open_source(folder, kind="classification", count=8).details["sequences"]["train"] == 6


def test_faults_name_the_file(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "films")
    (folder / "pos" / "3.txt").write_text("")
    with pytest.raises(ValueError, match=r"pos/3\.txt: expected a text; got an empty one"):
        open_source(folder, kind="classification")
    (folder / "pos" / "3.txt").write_bytes(b"ol\xe9")
    with pytest.raises(ValueError, match=r"pos/3\.txt, line 1: expected text in UTF-8; got byte 0xe9"):
        open_source(folder, kind="classification")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected text files .* in a subfolder a class; got none"):
        open_source(tmp_path / "empty", kind="classification")


def test_a_trained_model_finds_its_documents_again(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "films")
    task = open_source(folder, kind="classification", tokenizer="chars:1", length=16)
    spec = {"backbone": stack_spec("gru", 8, 1)}
    settings = TrainSettings.model_validate({"budget": "2steps", "batch_size": 4, "device": "cpu"})
    runs.train(spec, task, settings, tmp_path / "run")
    run = runs.load(tmp_path / "run")
    assert run.tokenizer is not None
    for source in (None, str(folder)):
        again = task_of(run, source, {})
        assert again.facts == task.facts
        assert torch.equal(again.test[1].inputs[:16], task.test[1].inputs)
    assert runs.evaluate(run, task_of(run, None, {}))["accuracy"] == runs.evaluate(run, task)["accuracy"]
