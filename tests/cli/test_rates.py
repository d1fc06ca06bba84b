"""Reading data as a run read it, and evaluating at another sampling rate than the training's."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hippodrome import runs
from hippodrome.data import open_source
from hippodrome.runs import accepts_rate

TRAIN = ["--width", "8", "--depth", "1", "--budget", "2steps", "--batch-size", "4", "--device", "cpu"]


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """Two classes of short recordings at 8 kHz, a low tone and a higher one."""
    rng = np.random.default_rng(0)
    for name, cycles in (("low", 150), ("high", 600)):
        (tmp_path / "tones" / name).mkdir(parents=True)
        for i in range(6):
            time = np.arange(300 + 20 * i) / 8000
            wave = 0.5 * np.sin(2 * np.pi * cycles * time + rng.uniform(0, 6))
            soundfile.write(tmp_path / "tones" / name / f"{i}.wav", wave, 8000)
    return tmp_path / "tones"


def test_a_permuted_run_is_evaluated_in_its_own_order(cli, tmp_path: Path) -> None:
    path, run = tmp_path / "digits.npz", tmp_path / "run"
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 3), dtype=np.uint8)
    np.savez(path, inputs=images, labels=np.arange(30) % 2)
    options = ["-s", "data.order=pixels", "-s", "data.permute=5"]
    assert cli("train", path, "--model", "lru", "--out", run, *TRAIN, *options, "--json").code == 0
    found = cli("evaluate", run, "--json").json()["metrics"]
    opened = runs.load(run)
    right = runs.evaluate(opened, open_source(path, order="pixels", permute=5))
    wrong = runs.evaluate(opened, open_source(path, order="pixels"))
    assert found["nats"] == pytest.approx(right["nats"])
    assert right["nats"] != wrong["nats"]
    # The same images under another name are read the same way; rows are not what the model was built for.
    path.rename(tmp_path / "others.npz")
    assert cli("evaluate", run, tmp_path / "others.npz", "--json").json()["metrics"] == found
    refused = cli("evaluate", run, tmp_path / "others.npz", "-s", "data.order=rows")
    assert refused.code == 2
    assert "channels=3; the model was built for 1" in refused.err


def test_half_the_rate_takes_steps_of_two(cli, tones: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = cli("train", tones, "--model", "s4d", "--out", run, *TRAIN, "-s", "data.seconds=0.04", "--json")
    assert trained.code == 0
    half = ["-s", "data.rate=4000", "--json"]
    told = cli("evaluate", run, "--rate", "2", *half).json()
    untold = cli("evaluate", run, *half).json()
    assert (told["rate"], untold["rate"]) == (2, None)
    assert told["metrics"]["nats"] != untold["metrics"]["nats"]
    # The command is the model at steps of two on recordings at 4 kHz, cut as in training.
    opened, task = runs.load(run), open_source(tones, rate=4000, seconds=0.04)
    assert accepts_rate(opened)
    assert told["metrics"] == pytest.approx(runs.evaluate(opened, task, rate=2.0))
    # A rate of one changes nothing.
    whole = cli("evaluate", run, "--json").json()["metrics"]
    assert cli("evaluate", run, "--rate", "1", "--json").json()["metrics"] == pytest.approx(whole, rel=1e-4)


def test_a_model_without_continuous_time_says_that_the_rate_was_left_out(
    cli, tones: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert cli("train", tones, "--model", "s4d+gru", "--out", run, *TRAIN[:3], "2", *TRAIN[4:]).code == 0
    answer = cli("evaluate", run, "-s", "data.rate=4000", "--rate", "2")
    assert answer.code == 0
    assert "--rate 2 was left out: not every mixer of this model has continuous time" in " ".join(
        answer.out.split()
    )
    asked = cli("evaluate", run, "-s", "data.rate=4000", "--rate", "2", "--json").json()
    assert asked["rate"] is None
    assert asked["metrics"] == cli("evaluate", run, "-s", "data.rate=4000", "--json").json()["metrics"]


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_a_rate_that_is_none(cli, classify_run: Path, rate: str) -> None:
    refused = cli("evaluate", classify_run, f"--rate={rate}")
    assert refused.code == 2
    assert "a finite number above 0" in " ".join(refused.err.split())


def test_a_rate_for_what_has_no_time_steps(cli, language_run: Path) -> None:
    refused = cli("evaluate", language_run, "--rate", "2")
    assert refused.code == 2
    assert "whose batches have time steps; got a language task" in " ".join(refused.err.split())


def test_the_memory_tasks_run_from_the_command_line(cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["-s", "data.length=40", "-s", "data.lag=5", "-s", "data.count=20"]
    trained = cli("train", "delay", "--model", "s4d", "--out", run, *TRAIN, *small, "--json")
    assert trained.json()["steps"] == 2
    found = cli("evaluate", run, "--json").json()
    assert found["task"] == "delay"
    assert set(found["metrics"]) == {"mse", "mae", "r2"}
    assert found["metrics"]["r2"] == pytest.approx(1 - found["metrics"]["mse"])
    assert cli("evaluate", run, "--rate", "0.5", "--json").json()["rate"] == 0.5
