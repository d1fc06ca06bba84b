"""A forecast through a trained language model, from the command line."""

from collections.abc import Callable
from pathlib import Path

import torch

from hippodrome import runs

SEGMENTS = ["--look-back", "24", "--horizon", "10", "-s", "model.options.forecasting.segment=8"]
SHORT = ["--budget", "2steps", "--device", "cpu"]


def test_the_language_model_is_in_the_forecaster_bit_for_bit(
    cli: Callable, language_run: Path, table_file: Path, tmp_path: Path
) -> None:
    words = ["train", table_file, "--model", "smetimes", "--language", language_run, *SEGMENTS, *SHORT]
    answer = cli(*words, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    made, language = runs.load(tmp_path / "run").model, runs.load(language_run).model
    assert made.frozen
    assert torch.equal(made.embedding.weight, language.embedding.weight)
    for name, tensor in language.backbone.state_dict().items():
        assert torch.equal(made.backbone.state_dict()[name], tensor), name
    found = cli("evaluate", tmp_path / "run", table_file, "--json").json()
    assert {"mse", "mae"} <= set(found["metrics"])


def test_what_does_not_go_with_a_language_model_is_one_line(
    cli: Callable, language_run: Path, table_file: Path, tmp_path: Path
) -> None:
    words = [
        "train",
        table_file,
        "--language",
        language_run,
        *SEGMENTS[:4],
        *SHORT,
        "--out",
        tmp_path / "run",
    ]
    for extra, message in (
        (["--model", "min_gru"], "Take the recipe smetimes"),
        (["--model", "smetimes", "--width", "16"], "--language brings the backbone: leave --width out"),
        (["--start-from", language_run], "leave --language out"),
    ):
        answer = cli(*words, *extra)
        assert answer.code == 2
        assert message in answer.err
        assert len(answer.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
