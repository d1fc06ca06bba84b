"""Pairs for an encoder: who is asked for among whom, and from a file to vectors by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hippodrome.cli import app
from hippodrome.data import open_source
from hippodrome.data.pairs import Neighbours, Pairs, collate, open_pairs
from hippodrome.models.encoder import EncoderModel


def numbered(index: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(3, index), np.full(1 + index % 4, index)


def test_the_first_candidate_is_the_partner_and_the_others_are_of_other_pairs_each_once() -> None:
    pairs = Pairs(numbered, 10, 5)
    for i in range(10):
        item = pairs[i]
        found = [int(row[0]) for row in item.candidates]
        assert found[0] == int(item.query[0]) == i
        assert len(set(found)) == 6
        assert [int(row[0]) for row in pairs[i].candidates] == found
    assert len(Pairs(numbered, 3, 5)[0].candidates) == 3
    batch = collate([pairs[0], pairs[5]])
    assert batch.candidates.shape == (2, 6, 4)
    assert torch.equal(batch.lengths, 1 + batch.candidates[:, :, 0] % 4)


@pytest.mark.parametrize("seed", [None, 3])
def test_neighbours_do_not_overlap_and_lie_within_a_stretch(seed: int | None) -> None:
    pair = Neighbours(np.arange(100), 10, seed)
    gaps = []
    for i in range(pair.places if seed is None else 50):
        one, other = pair(i)
        assert len(one) == len(other) == 10
        gaps.append(int(other[0] - one[-1]) - 1)
    assert min(gaps) >= 0
    assert max(gaps) <= 10
    assert len(set(gaps)) > 2


def test_equal_first_texts_stay_in_one_part(tmp_path: Path) -> None:
    file = tmp_path / "p.tsv"
    file.write_text("".join(f"question {i % 60}\tanswer {i}\n" for i in range(120)), encoding="utf-8")
    task = open_pairs(file, length=64)
    assert task.tokenizer is not None
    said = [
        {task.tokenizer.decode(part[i].query.tolist()) for i in range(len(part))}  # type: ignore[attr-defined, arg-type]
        for part in (task.train, task.valid, task.test)
    ]
    assert sum(map(len, said)) == len(set.union(*said)) == 60
    EncoderModel(EncoderModel.example().backbone, **task.facts).loss(task.collate([task.train[0]] * 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "words"),
    [("a\tb\nc\n", "line 2: expected two texts with a tab; got 1"), ("a\tb\n", "two pairs or more")],
)
def test_faults_of_pairs(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "p.tsv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        open_source(file, kind="encoder")


def test_from_a_text_to_vectors_by_the_command_line(tmp_path: Path) -> None:
    text, first, run = tmp_path / "t.txt", tmp_path / "masked", tmp_path / "run"
    text.write_text("The quick brown fox jumps over the lazy dog.\n" * 60, encoding="utf-8")
    quick = ["--budget", "2steps", "--device", "cpu", "--batch-size", "2"]
    quick += ["-s", "data.length=16", "-s", "training.validations=1"]
    small = ["--model", "bi-min_gru", "--width", "8", "--depth", "1"]
    lines = tmp_path / "lines.txt"
    lines.write_text("The quick\n\nlazy dog, the lazy dog\n", encoding="utf-8")
    out = tmp_path / "v.npz"
    for words in (
        ["train", str(text), "--kind", "masked_language", "--out", str(first), *small, *quick],
        ["train", str(text), "--kind", "encoder", "--out", str(run), "--start-from", str(first), *quick],
        ["evaluate", str(run)],
        ["embed", str(run), str(lines), "--out", str(out)],
    ):
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, answer.output
    vectors = np.load(out)["vectors"]
    assert vectors.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    answer = CliRunner().invoke(app, ["embed", str(first), "--json"], input="lazy dog, the lazy dog\n")
    assert len(json.loads(answer.stdout)[0]["vector"]) == 8
    one = CliRunner().invoke(app, ["embed", str(run), "--json"], input="lazy dog, the lazy dog\n")
    np.testing.assert_allclose(json.loads(one.stdout)[0]["vector"], vectors[1], rtol=1e-4, atol=1e-6)
    refused = CliRunner().invoke(
        app, ["train", str(text), "--start-from", str(first), "--width", "8", *quick]
    )
    assert refused.exit_code == 2
    assert "leave --width out" in " ".join(refused.output.split())
