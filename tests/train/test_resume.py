"""Runs in processes of their own that are killed, interrupted, or find the disk full, and then resumed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from toy_run import TRAIN, VALID, collate, toy_model

from hippodrome.train import checkpoint
from hippodrome.train.fit import FitResult, fit
from hippodrome.train.settings import TrainSettings

PROGRAM = str(Path(__file__).with_name("toy_run.py"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork, signals and file limits"),
]


def settings(**given) -> TrainSettings:
    return TrainSettings(
        **{
            "budget": "40steps",
            "batch_size": 8,
            "device": "cpu",
            "validations": 5,
            "accumulate": 2,
            "log_every": 3,
            "checkpoint_steps": 4,
            **given,
        }
    )


def here(folder: Path, given: TrainSettings, resume: bool = False) -> FitResult:
    return fit(toy_model(), TRAIN, VALID, collate, given, folder, resume=resume)


def assert_equal_to_the_bit(one: FitResult, other: FitResult, what: str = "") -> None:
    assert (one.steps, one.tokens, one.best, one.best_step) == (
        other.steps,
        other.tokens,
        other.best,
        other.best_step,
    )
    for name, tensor in one.weights.items():
        assert torch.equal(tensor, other.weights[name]), (what, name)
    for a, b in zip(one.history, other.history, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


class Life(NamedTuple):
    """How a process ended, what it said, and the folder that it left."""

    code: int
    said: str
    folder: Path


@pytest.fixture(scope="module")
def lives(tmp_path_factory) -> dict[str, Life]:
    """All processes of this file: those that end badly, each in a folder of its own name."""
    place = tmp_path_factory.mktemp("lives")
    at = random.SystemRandom().randint(5, 39)
    wanted = {
        f"steps killed at {at}": ("steps", settings(), [f"kill={at}"]),
        f"tokens killed at {at}": ("tokens", settings(budget="7680tok"), [f"kill={at}"]),
        **{f"again at {i}": ("again", settings(), ["resume", f"kill={i}"]) for i in (3, 11, 12, 30)},
        "damaged": ("damaged", settings(), ["kill=30"]),
        "interrupted": ("interrupted", settings(checkpoint_steps=None), ["interrupt=17"]),
        "full": ("full", settings(), ["full=9"]),
        "quiet": ("quiet", settings(budget="4steps"), []),
    }
    arguments = [
        [str(place / name), given.model_dump_json(exclude_unset=True), *words]
        for name, given, words in wanted.values()
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, PROGRAM, "lives", json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    return {
        key: Life(code, said, place / name)
        for (key, (name, _, _)), (code, said) in zip(wanted.items(), ends, strict=True)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> FitResult:
    """The run that nothing interrupted."""
    return here(tmp_path_factory.mktemp("whole"), settings())


@pytest.mark.parametrize(("name", "budget"), [("steps", "40steps"), ("tokens", "7680tok")])
def test_killed_at_a_random_step_and_resumed_it_is_equal_to_the_bit(lives, whole, name, budget):
    key = next(key for key in lives if key.startswith(f"{name} killed at"))
    assert lives[key].code == -9, lives[key].said
    assert not (lives[key].folder / "final.pt").exists()
    assert_equal_to_the_bit(here(lives[key].folder, settings(budget=budget), resume=True), whole, key)


def test_killed_again_and_again(lives, whole):
    again = [life for key, life in lives.items() if key.startswith("again")]
    assert [life.code for life in again] == [-9] * 4, again
    with (again[0].folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "st')
    assert_equal_to_the_bit(here(again[0].folder, settings(), resume=True), whole)


def test_a_damaged_last_checkpoint_costs_steps_but_not_exactness(lives, whole):
    folder = lives["damaged"].folder
    newest = checkpoint.listed(folder / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match="damaged"):
        resumed = here(folder, settings(), resume=True)
    assert_equal_to_the_bit(resumed, whole)


def test_ctrl_c_writes_a_checkpoint_of_the_step(lives, whole):
    code, said, folder = lives["interrupted"]
    assert code == 1
    assert "stopped after step 18; resume continues from there" in said
    assert [p.name[:13] for p in checkpoint.listed(folder / "checkpoints")] == ["step-00000018"]
    assert_equal_to_the_bit(here(folder, settings(), resume=True), whole)


def test_a_full_disk_ends_in_a_sentence_with_the_last_good_checkpoint_intact(lives, whole):
    _, said, folder = lives["full"]
    sentence = said.strip().splitlines()[-1]
    assert sentence.startswith("OSError: the checkpoint of step 12 could not be written to")
    assert "File too large" in sentence
    assert "the last good one, step-00000008-" in sentence
    place = folder / "checkpoints"
    assert [p.name[:13] for p in sorted(place.iterdir())] == ["step-00000004", "step-00000008"]
    assert checkpoint.latest(place) == checkpoint.listed(place)[0]
    assert_equal_to_the_bit(here(folder, settings(), resume=True), whole)


def test_a_run_says_nothing_and_leaves_our_files_alone(lives):
    code, said, folder = lives["quiet"]
    assert (code, said) == (0, "")
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoints", "final.pt", "metrics.jsonl"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 3, 4]
