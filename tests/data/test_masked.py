"""Hidden tokens: rates as asked, each place once at any length, new masks; DNA and proteins by letter."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data.dna import DNA, PROTEIN, encode, open_sequences, read_records, tokenizer_of
from hippodrome.data.masked import FixedWindows, FreshWindows, Masking, Stream, collate, hide
from hippodrome.models.masked_language import MaskedLanguageModel

MASKING = Masking(0.15, None, 0.8, 0.1, 50, np.arange(50))


def near(count: int, of: int, share: float) -> bool:
    """Within four standard deviations."""
    return abs(count - of * share) < 4 * math.sqrt(of * share * (1 - share))


def test_shares_of_what_is_asked_and_of_what_is_read_there() -> None:
    tokens = np.random.default_rng(0).integers(0, 50, 100_000).astype(np.uint8)
    read, targets = hide(tokens, MASKING, seed=3)
    asked, ids = targets != -100, torch.from_numpy(tokens.astype(np.int64))
    count = int(asked.sum())
    assert near(count, 100_000, 0.15)
    assert torch.equal(targets[asked], ids[asked])
    assert torch.equal(read[~asked], ids[~asked])
    hidden, kept = (read == 50)[asked], (read == ids)[asked]
    assert near(int(hidden.sum()), count, 0.8)
    assert near(int(kept.sum()), count, 0.1 + 0.1 / 50)
    changed = read[asked][~hidden & ~kept]
    assert len(changed.unique()) == 50
    again, _ = hide(tokens, MASKING, seed=3)
    other, _ = hide(tokens, MASKING, seed=4)
    assert torch.equal(read, again)
    assert not torch.equal(read, other)


def test_only_letters_that_are_asked_for_are_and_one_of_them_at_least() -> None:
    some = MASKING._replace(letters=np.array([3]), rate=0.01)
    tokens = np.array([1, 3, 2, 3, 4], dtype=np.uint8)
    for seed in range(20):
        assert int((hide(tokens, some, seed)[1] == 3).sum()) == 1
    assert int((hide(np.ones(5, dtype=np.uint8), some, 0)[1] != -100).sum()) == 0


@pytest.mark.parametrize("length", [7, 10, 64, 100])
def test_the_same_places_are_asked_at_every_length_each_once(length: int) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, 64).astype(np.uint8)
    whole_read, whole = hide(tokens, MASKING, 5)
    windows = FixedWindows(Stream(tokens, np.zeros(1)), length, MASKING, 5)
    found = torch.full((64,), -100)
    for i in range(len(windows)):
        start = min(i * windows.length, 64 - windows.length)
        piece = slice(start, start + windows.length)
        item = windows[i]
        assert torch.equal(item.tokens, whole_read[piece].long())
        asked = item.targets != -100
        assert (found[piece][asked] == -100).all()  # not asked before
        found[piece] = torch.where(asked, item.targets, found[piece])
    assert torch.equal(found, whole.long())
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_training_hides_other_places_on_each_visit_and_the_same_for_the_same_visit() -> None:
    tokens = np.arange(40, dtype=np.uint8)
    fresh = FreshWindows(Stream(tokens, np.zeros(1)), 40, MASKING, seed=1)  # one offset is possible
    first, later = fresh[2], fresh[2 + len(fresh)]
    assert fresh.renewed
    assert torch.equal(fresh[2].tokens, first.tokens)
    assert not torch.equal(first.targets, later.targets)


def test_pieces_are_marked_where_they_begin_inside_a_window() -> None:
    windows = FixedWindows(Stream(np.arange(12, dtype=np.uint8), np.array([0, 2, 6])), 6, MASKING, 0)
    batch = collate([windows[0], windows[1]])
    assert batch.resets is not None
    assert batch.resets.nonzero().tolist() == [[0, 2]]
    plain = FixedWindows(Stream(np.arange(12, dtype=np.uint8), np.zeros(1)), 6, MASKING, 0)
    assert collate([plain[0], plain[1]]).resets is None


def test_text_and_its_facts_fit_the_model(tmp_path: Path) -> None:
    file = tmp_path / "rhyme.txt"
    file.write_text("The quick brown fox jumps over the lazy dog.\n" * 60, encoding="utf-8")
    for tokenizer in ("bytes", 300):
        task = open_source(
            file,
            kind="masked_language",
            length=16,
            tokenizer=tokenizer,
            mask_rate=0.3,
            corruption=[1.0, 0.0, 0.0],
        )
        assert task.kind == "masked_language"
        model = MaskedLanguageModel(MaskedLanguageModel.example().backbone, **task.facts)
        batch = task.collate([task.train[i] for i in range(64)])
        asked = batch.targets != -100  # type: ignore[union-attr]
        assert near(int(asked.sum()), asked.numel(), 0.3)
        assert bool((batch.tokens[asked] == model.mask_token).all())  # type: ignore[union-attr]
        assert bool(model.loss(batch).isfinite())  # type: ignore[arg-type]
        assert {"nats", "bits_per_byte", "accuracy"} == set(task.naive()["unigram"])
    assert open_source("python-docs", kind="masked_language").kind == "masked_language"
    assert open_source("python-docs").kind == "language"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_rate": 1.5}, "above 0 and below 1; got 1.5"),
        ({"eval_rate": 0.0}, "above 0 and below 1; got 0"),
        ({"span": 0}, "one step or more"),
        ({"corruption": [0.8, 0.1]}, "three shares that add up to 1"),
        ({"corruption": [0.8, 0.3, -0.1]}, "three shares that add up to 1"),
    ],
)
def test_what_cannot_be_hidden_is_refused(tmp_path: Path, options: dict, words: str) -> None:
    file = tmp_path / "rhyme.txt"
    file.write_text("The quick brown fox jumps over the lazy dog.\n" * 20, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        open_source(file, kind="masked_language", length=16, **options)


def test_fasta_and_genbank_hold_the_same_letters(tmp_path: Path) -> None:
    bases = "".join(np.random.default_rng(0).choice(list("acgt"), 130))
    fasta, genbank = tmp_path / "g.fasta.gz", tmp_path / "g.gb"
    lines = [">one first", bases[:70].upper(), bases[70:100], ">two", bases[100:]]
    fasta.write_bytes(gzip.compress("\n".join(lines).encode()))
    lines = ["LOCUS       one 100 bp", "FEATURES", "     gene 1..9", "ORIGIN", f"        1 {bases[:60]}"]
    lines += [f"       61 {bases[60:100]}", "//", "LOCUS       two 30 bp", "ORIGIN"]
    lines += [f"        1 {bases[100:110]} {bases[110:]}", "//"]
    genbank.write_text("\n".join(lines))
    for records in (read_records(fasta), read_records(genbank)):
        assert records.letters.tobytes().decode() == bases.upper()
        assert records.begins.tolist() == [0, 100]
        assert records.names == ["one", "two"]


def test_dna_has_the_published_ids_and_their_complements(tmp_path: Path) -> None:
    file = tmp_path / "g.fa"
    file.write_text(">x\n" + "ACGTNRU" * 60 + "\n")
    task = open_sequences(file, length=32)
    assert (task.facts["vocab_size"], task.facts["mask_token"]) == (12, 3)
    assert task.facts["complement"] == [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11]
    assert task.train.stream.tokens[:7].tolist() == [7, 8, 9, 10, 11, 11, 10]  # type: ignore[attr-defined]
    asked = torch.cat([task.test[i].targets for i in range(len(task.test))])  # type: ignore[arg-type]
    assert set(asked.unique().tolist()) <= {-100, 7, 8, 9, 10}
    assert tokenizer_of(DNA).encode("acgTN").ids == [7, 8, 9, 10, 11]
    assert tokenizer_of(DNA).decode([7, 10]) == "AT"
    MaskedLanguageModel(MaskedLanguageModel.example().backbone, **task.facts)


def test_proteins_are_told_by_their_letters_and_packed(tmp_path: Path) -> None:
    file = tmp_path / "p.fasta"
    file.write_text(">a\nMSIQHFRVAL\n>b\nIPFFAAFCLP\n" * 12)
    task = open_sequences(file, length=16)
    assert task.facts == {"vocab_size": 33, "mask_token": 32}
    assert task.details["letters"] == "proteins"
    letters = np.frombuffer(b"LC.", dtype=np.uint8)
    assert encode(PROTEIN, letters).tolist() == [4, 23, 29]
    batch = task.collate([task.train[i] for i in range(4)])
    assert int(batch.resets.sum()) >= 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hello\n", "expected FASTA .* or GenBank"),
        (">a\n>b\n", "letters in its records"),
        (">a\nACG1T\n", "got '1'. See line 2"),
        (">a\nACGT\n", "32 letters or more to train on"),
    ],
)
def test_faults_in_sequences_are_told(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "g.fasta"
    file.write_text(content)
    with pytest.raises(ValueError, match=words):
        open_sequences(file, length=32)


@pytest.mark.data
def test_a_chloroplast(data_folder: Path) -> None:
    records = read_records(data_folder / "dna" / "NC_000932_arabidopsis_chloroplast.gb")
    assert len(records.letters) == 154_478  # as its LOCUS says
    assert records.letters[:10].tobytes() == b"ATGGGCGAAC"
