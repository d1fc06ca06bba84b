"""Videos from the command line and in a race: sizes are filled in, ConvLSTM runs along, frames are shown."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hippodrome import config, race
from hippodrome.cli import app
from hippodrome.data import open_source
from hippodrome.estimators import load
from hippodrome.race.plan import make_plan
from hippodrome.race.settings import RaceSettings

QUICK = {"budget": "2steps", "parameters": 3000, "depth": 1, "batch_size": 2, "validations": 1, "lengths": ()}


def test_a_race_of_videos_shows_what_each_imagines(tmp_path: Path) -> None:
    task = open_source("moving-shapes", count=10, length=4, size=16)
    settings = RaceSettings.model_validate({**QUICK, "device": "cpu"})
    result = race(task, settings=settings, folder=tmp_path / "r", live=False)
    assert {s.name for s in result.standings} == {"conv_s5", "conv_lstm"}
    assert {"last frame", "train mean"} <= set(result.naive)
    assert {"mse", "open_mse", "open_ssim"} <= set(result.standings[0].tests) | {result.metric}
    (shown,) = result.exhibits.frames
    assert shown.rows[0] == "the video"
    assert shown.context == 2
    page = result.report.read_text()
    assert "<h2>Frames</h2>" in page
    assert "data:image/png;base64,iVBOR" in page
    with pytest.raises(ValueError, match="has no estimator"):
        load(tmp_path / "r")


def test_a_video_model_is_trained_evaluated_and_shown_from_the_command_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", inputs=np.full((10, 8, 8), 255, dtype=np.uint8))
    run, picture = str(tmp_path / "run"), tmp_path / "p.png"
    for words in (
        ["train", str(tmp_path / "d.npz"), "--kind", "video", "--model", "conv_s5", "--budget", "2steps"]
        + ["--parameters", "3000", "--depth", "1", "--out", run, "--batch-size", "2"]
        + [f"-sdata.{name}" for name in ("size=16", "length=4", "count=10", "objects=1")],
        ["evaluate", run],
        ["generate", run, "--out", str(picture)],
    ):
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, answer.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    for words, told in (
        ([], "--out FILE.png"),
        (["--out", str(tmp_path / "none" / "p.png")], "there is no folder"),
        (
            ["--out", str(tmp_path / "q.png"), "--spectrogram", "s.png"],
            "--spectrogram is not for models of videos",
        ),
    ):
        refused = CliRunner().invoke(app, ["generate", run, *words])
        assert refused.exit_code != 0
        assert told in refused.output
    assert not (tmp_path / "q.png").exists()


def test_lengths_of_videos_are_counted_in_frames() -> None:
    settings = RaceSettings.model_validate({})
    assert max(settings.lengths_for("video")) <= 1024 < max(settings.lengths_for("language"))
    assert RaceSettings.model_validate({"lengths": [8, 16]}).lengths_for("video") == (8, 16)
    assert RaceSettings.model_validate({"lengths": []}).lengths_for("video") == ()


def test_sizes_come_from_the_task() -> None:
    video = open_source("moving-shapes", count=10, size=16)
    sizes = config.grid(video.kind, video.facts, video.details)
    assert sizes == [4, 4]
    assert config.width_step("video", sizes) == 16
    assert config.width_step("classification", [28, 28]) == 8
    assert config.with_sizes("conv_s5+mamba", None, sizes) == {"conv_s5": {"sizes": [4, 4]}}
    given = {"conv_s5": {"sizes": [8, 8], "kernel": 1}}
    assert config.with_sizes("conv_s5", given, sizes) == given
    with pytest.raises(ValueError, match="runs over a grid"):
        config.with_sizes("s4nd", None, None)


def test_pictures_read_by_pixels_are_a_grid_for_s4nd(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(
        path,
        inputs=np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8),
        labels=np.arange(40) % 2,
    )
    task = open_source(path, order="pixels")
    plan = make_plan(
        task, RaceSettings.model_validate({**QUICK, "models": "s4nd", "baselines": ()}), outlook=False
    )
    assert plan.entries[0].spec["backbone"]["blocks"][0]["mixer"]["sizes"] == [6, 5]
    for other in ({}, {"order": "pixels", "permute": 0}):
        rows = open_source(path, **other)
        assert config.grid(rows.kind, rows.facts, rows.details) is None
