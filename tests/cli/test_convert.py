"""`hippodrome convert`, and verbs that are given the folder of a checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from typer.testing import CliRunner

import hippodrome
from hippodrome import config
from hippodrome.checkpoints import writing
from hippodrome.cli import app
from hippodrome.data.text import byte_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = {
        "kind": "language",
        "vocab_size": 256,
        "tie": True,
        "backbone": config.stack_spec("mamba", 16, 2, options={"mamba": {"d_state": 4}}),
    }
    torch.manual_seed(0)
    place = tmp_path / "theirs"
    writing.export(config.build(spec), writing.origin_of(spec, "mamba-hf", torch.float32), place)
    byte_tokenizer().save(str(place / "tokenizer.json"))
    return place


def call(*words: object, code: int = 0) -> str:
    answer = CliRunner().invoke(app, [str(word) for word in words])
    assert answer.exit_code == code, answer.output
    return answer.output


def test_into_a_run_and_back(folder: Path, tmp_path: Path) -> None:
    run, back = tmp_path / "run", tmp_path / "back"
    told = json.loads(call("convert", folder, "--out", run, "--json"))
    assert told["layout"] == "mamba-hf"
    assert told["dtype"] == "float32"
    text = tmp_path / "text.txt"
    text.write_text("All the world is a stage, and all the men and women merely players. " * 40)
    nats = [
        json.loads(call("evaluate", place, text, "-s", "data.length=32", "--json"))["metrics"]["nats"]
        for place in (folder, run)
    ]
    assert nats[0] == pytest.approx(nats[1], rel=1e-6)
    call("convert", run, "--out", back, "--to", "origin")
    assert (back / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert Tokenizer.from_file(str(back / "tokenizer.json")).get_vocab_size() == 256
    call("convert", folder, "--out", tmp_path / "own", "--to", "mamba")
    assert (tmp_path / "own" / "pytorch_model.bin").stat().st_size > 10**4
    call("convert", run, "--out", tmp_path / "parts", "--to", "origin", "--shard", "8kB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--to", "mamba-fh"), "did you mean 'mamba-hf'?"),
        (("--to", "mamba2-hf"), "cannot say what this model is"),
        (("--dtype", "float8"), "weights are float32, bfloat16, float64"),
        (("--to", "origin", "--shard", "5"), "a number of bytes with a unit"),
        (("--tokenizer", "nowhere"), "nowhere"),
    ],
)
def test_a_sentence_and_nothing_written(
    folder: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    told = call("convert", folder, "--out", tmp_path / "out", *words, code=2)
    assert sentence in " ".join(told.split())
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_has_no_data_of_its_own(folder: Path, tmp_path: Path) -> None:
    """Not even that of the folder in which the command is typed."""
    for words in (("evaluate", folder), ("quantize", folder, "--on", "own", "--out", tmp_path / "q")):
        assert "name a source" in call(*words, code=2)


def test_a_checkpoint_opens_from_python_and_estimators_say_how(folder: Path) -> None:
    run = hippodrome.open_model(folder)
    assert run.spec["vocab_size"] == 256
    with pytest.raises(ValueError, match=r"hippodrome.open_model opens it"):
        hippodrome.load(folder)
