"""`hippodrome classify` reads as the training did: images in their order, recordings at their rate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hippodrome import runs
from hippodrome.data import open_source

TRAIN = ["--width", "8", "--depth", "1", "--budget", "2steps", "--batch-size", "4", "--device", "cpu"]


def chances(run: Path, dataset: Any, task: Any) -> list[float]:
    """What the model itself says of the likelier class of each sequence."""
    batch = task.collate([dataset[i] for i in range(len(dataset))])
    with torch.no_grad():
        logits = runs.load(run).model.logits(batch.inputs, batch.lengths)
    return logits.softmax(-1).amax(-1).tolist()


def told(answer: Any) -> list[float]:
    return [row["probability"] for row in answer.json()["sequences"]]


def test_images_are_read_in_the_order_of_the_training(cli, tmp_path: Path) -> None:
    path, run, test = tmp_path / "digits.npz", tmp_path / "run", tmp_path / "test.npz"
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 3), dtype=np.uint8)
    labels, split = np.arange(30) % 2, np.repeat(["train", "test"], [20, 10])
    np.savez(path, inputs=images, labels=labels, split=split)
    np.savez(test, inputs=images[20:], labels=labels[20:])
    options = ["-s", "data.permute=5", "--json"]
    assert cli("train", path, "--model", "min_gru", "--out", run, *TRAIN, *options).code == 0
    task = open_source(path, permute=5)
    answer = cli("classify", run, test, "--json")
    assert told(answer) == pytest.approx(chances(run, task.test, task), abs=1e-5)
    plain = open_source(path)
    assert told(answer) != pytest.approx(chances(run, plain.test, plain), abs=1e-5)
    assert answer.json()["accuracy"] == pytest.approx(runs.evaluate(runs.load(run), task)["accuracy"])
    image = pytest.importorskip("PIL.Image")
    for i, array in enumerate(images[20:]):
        image.fromarray(array).save(tmp_path / f"{i}.PNG", format="png")
    (tmp_path / "seen").mkdir()
    for file in tmp_path.glob("*.PNG"):
        file.rename(tmp_path / "seen" / file.name)
    assert told(cli("classify", run, tmp_path / "seen", "--json")) == pytest.approx(told(answer), abs=1e-6)


def test_recordings_are_read_at_the_rate_of_the_training(cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "sound" / name).mkdir(parents=True)
        for i in range(6):
            soundfile.write(tmp_path / "sound" / name / f"{i}.wav", rng.uniform(-1, 1, 200 + 10 * i), 8000)
    run = tmp_path / "run"
    options = ["-s", "data.rate=4000", "-s", "data.seconds=0.026", "--json"]
    assert cli("train", tmp_path / "sound", "--model", "min_gru", "--out", run, *TRAIN, *options).code == 0
    task = open_source(tmp_path / "sound", rate=4000, seconds=0.026)
    said = {
        row["sequence"]: row["probability"]
        for row in cli("classify", run, tmp_path / "sound", "--json").json()["sequences"]
    }
    files = sorted((tmp_path / "sound").glob("*/*.wav"))
    for part in (task.train, task.valid, task.test):
        mine = [said[str(files[i])] for i in part.chosen]
        assert mine == pytest.approx(chances(run, part, task), abs=1e-5)


def test_what_cannot_be_classified_is_said(cli, classify_run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "dt.npz", inputs=np.zeros((3, 8, 1)), dt=np.ones((3, 8)))
    (tmp_path / "empty").mkdir()
    for source, word in ((tmp_path / "dt.npz", "evaluate"), (tmp_path / "empty", ".png")):
        answer = cli("classify", classify_run, source)
        assert answer.code == 2
        assert len(answer.err.strip().splitlines()) == 1
        assert word in answer.err
