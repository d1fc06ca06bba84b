"""`hippodrome inspect RUN --on N` of a forecaster: what it remembers of its look-back."""

from pathlib import Path

import pytest


def test_a_forecaster_shows_what_it_remembers(cli, forecast_run: Path, tmp_path: Path) -> None:
    answer = cli("inspect", forecast_run, "--on", 3, "--length", 8, "--png", tmp_path)
    assert answer.code == 0, answer.err
    assert "95 %" in answer.out
    assert (tmp_path / "look-back.png").stat().st_size > 1000
    told = cli("inspect", forecast_run, "--on", 3, "--length", 8, "--json").json()["look_back"]
    assert told["look_back"] == len(told["influence"]) == 48
    assert 1 <= told["reach"] <= 48
    assert 1 <= told["windows"] <= 64


def test_a_linear_forecaster_has_no_backbone_to_look_at(cli, table_file: Path, tmp_path: Path) -> None:
    words = ["--look-back", 24, "--horizon", 8, "--budget", "2steps", "--device", "cpu"]
    answer = cli("train", table_file, "--model", "dlinear", "--out", tmp_path / "run", *words, "--json")
    assert answer.code == 0, answer.err
    found = cli("inspect", tmp_path / "run", "--on", 1, "--json").json()
    # Two maps of 24 to 8 for the point, one of 24 to three quantiles for each of 8 steps.
    assert found["parameters"] == 2 * (24 * 8 + 8) + 24 * 24 + 24
    assert found["memory_tokens"] is None
    # Over 24 hours of the past, each map starts at the mean: all steps count.
    assert min(found["look_back"]["influence"]) == pytest.approx(1 / 24, rel=0.5)
