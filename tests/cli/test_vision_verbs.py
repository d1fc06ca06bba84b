"""Pictures on the command line: train, evaluate, classify and race models of kind vision."""

import numpy as np
import pytest

from hippodrome import runs
from hippodrome.data import open_source


@pytest.fixture
def archive(tmp_path):
    """Pictures of 8 x 8 whose class is the corner that is bright."""
    numbers = np.random.default_rng(0)
    labels = np.arange(120) % 3
    pictures = numbers.integers(0, 60, (120, 8, 8), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        i, j = divmod(int(label), 2)
        picture[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] += 120
    path = tmp_path / "corners.npz"
    np.savez(path, inputs=pictures, labels=labels, split=np.repeat(["train", "test"], [90, 30]))
    return path


def test_train_evaluate_and_classify_from_the_command_line(cli, archive, tmp_path):
    run = tmp_path / "run"
    options = ["-s", "model.options.vision.patch=2", "-s", "model.norm=layer", "--kind", "vision", "--json"]
    small = ["--width", "8", "--depth", "1", "--budget", "30steps", "--lr", "0.02", "--device", "cpu"]
    model = ["--model", "pyramid:evss:inverted_residual", "--out", run]
    assert cli("train", archive, *model, *small, *options).code == 0
    told = cli("evaluate", run, "--json").json()
    opened = runs.load(run)
    assert opened.model.patch == 2
    assert opened.spec["kind"] == "vision"
    task = open_source(archive, kind="vision")
    found = runs.evaluate(opened, task)["accuracy"]
    assert found > 0.6  # a third by chance
    assert str(round(found, 3))[:5] in str(told)
    path = tmp_path / "test.npz"
    with np.load(archive) as data:
        np.savez(path, x_test=data["inputs"][90:], y_test=data["labels"][90:])
    assert cli("classify", run, path, "--json").json()["accuracy"] == pytest.approx(found)
    assert cli("inspect", run, "--json").code == 0  # its context is one grid


def test_a_recipe_takes_the_grid_of_the_pictures_at_hand(cli, archive, tmp_path):
    small = ["--width", "8", "--depth", "1", "--budget", "1steps", "--batch-size", "2", "--device", "cpu"]
    asked = ["train", archive, "--kind", "vision", "--model", "vim_ti", "--json", "--out", tmp_path / "run"]
    assert "brings its own model" in cli(*asked, *small, "-s", "model.norm=layer").err
    assert cli(*asked, *small, "-s", "model.options.vision.patch=2").code == 0
    model = runs.load(tmp_path / "run").model
    assert (model.patch, model.pooling, model.positions.shape) == (2, "token", (17, 8))


def test_a_race_of_pictures(cli, archive, tmp_path):
    answer = cli(
        "race", archive, "--kind", "vision", "--models", "cross-min_gru", "--budget", "2steps",
        "--parameters", "3000", "--depth", "1", "--batch-size", "4", "--device", "cpu",
        "-s", "options.vision.patch=2", "-s", "baselines=[]", "-s", "lengths=[]",
        "--out", tmp_path / "r", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    names = {standing["name"] for standing in answer.json()["standings"]}
    assert names == {"cross-min_gru"}
