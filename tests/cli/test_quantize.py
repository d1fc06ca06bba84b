"""`hippodrome quantize` as it is typed: what it writes and tells, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file

from hippodrome import runs


def test_a_run_in_int8_is_a_run_like_any_other(cli, language_run, tmp_path):
    out = tmp_path / "small"
    answer = cli("quantize", language_run, "--out", out, "--on", "own", "--json")
    assert answer.code == 0, answer.err
    told = answer.json()
    layers = told["rounded"]
    assert told["layers"] == len(layers) > 1
    assert told["largest_error"]["error"] == max(layer["error"] for layer in layers) < 0.02
    tensors = load_file(out / "model.safetensors")
    assert told["bytes"]["after"] == sum(t.nbytes for t in tensors.values())
    assert told["bytes"]["before"] - told["bytes"]["after"] == sum(r["before"] - r["after"] for r in layers)
    assert sum(t.dtype == torch.int8 for t in tensors.values()) == len(layers)
    metrics = told["metrics"]
    assert metrics["after"]["nats"] == pytest.approx(metrics["before"]["nats"], rel=0.01)
    assert metrics["after"]["nats"] != metrics["before"]["nats"]
    assert json.loads((out / "config.json").read_text())["task"]["quantized"] == "int8"
    # What was measured in memory is what the folder holds.
    again = cli("evaluate", out, "--json").json()["metrics"]
    assert again["nats"] == pytest.approx(metrics["after"]["nats"], rel=1e-6)
    assert cli("generate", out, "--prompt", "The ", "--tokens", "3", "--seed", "1").code == 0
    words = ("--prompt", "The ", "--tokens", "3", "--seed", "1")
    assert cli("generate", out, *words, "--dtype", "int8").out == cli("generate", out, *words).out
    before, after = runs.load(language_run), runs.load(out)
    assert after.spec == before.spec
    assert after.words is not None


def test_the_table_and_the_layers_that_stay(cli, language_run, tmp_path):
    answer = cli("quantize", language_run, "--out", tmp_path / "a", "--keep", "embedding,out_proj")
    assert answer.code == 0, answer.err
    assert "bytes" in answer.out
    assert "run folder: " in answer.out
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    assert tensors["embedding.weight"].dtype == torch.float32


def test_other_kinds_of_models(cli, forecast_run, classify_run, tmp_path):
    for run, name in ((forecast_run, "f"), (classify_run, "c")):
        answer = cli("quantize", run, "--out", tmp_path / name, "--on", "own", "--json")
        if answer.code == 2:  # so small that no map has 16 channels
            assert "no weights that are rounded" in answer.err
        else:
            metrics = answer.json()["metrics"]
            assert set(metrics["before"]) == set(metrics["after"])


def test_what_is_refused_in_one_line(cli, language_run, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "note").write_text("mine")
    done = tmp_path / "done"
    assert cli("quantize", language_run, "--out", done).code == 0
    for words, sentence in (
        ((language_run, "--out", full), "is not an empty folder"),
        ((tmp_path / "none", "--out", tmp_path / "x"), "there is no such folder"),
        ((language_run, "--out", tmp_path / "x", "--keep", "haed"), "is called 'haed'"),
        ((language_run, "--out", tmp_path / "x", "--part", "tset"), "there is no part 'tset'"),
        ((done, "--out", tmp_path / "x"), "int8 already"),
        ((language_run, "--out", tmp_path / "x", "--dtype", "int4"), "int4"),
    ):
        answer = cli("quantize", *words)
        assert answer.code == 2
        assert answer.out == ""
        assert len(answer.err.strip().splitlines()) == 1
        assert sentence in answer.err
    answer = cli("convert", done, "--to", "mamba", "--out", tmp_path / "x")
    assert answer.code == 2
    assert "weights in int8" in answer.err
    assert not (tmp_path / "x").exists()
    assert [p.name for p in full.iterdir()] == ["note"]
