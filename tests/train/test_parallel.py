"""Two processes over gloo, data parallel and fully sharded, against one process with the same rows."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_run import TRAIN, VALID, collate, toy_model

from hippodrome.train.fit import fit
from hippodrome.train.settings import TrainSettings

PROGRAM = str(Path(__file__).with_name("toy_run.py"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="not tried on Windows"),
]


def settings(**given) -> TrainSettings:
    return TrainSettings(
        **{
            "budget": "16steps",
            "batch_size": 16,
            "device": "cpu",
            "validations": 3,
            "checkpoint_steps": 3,
            **given,
        }
    )


def two(folder: Path, given: TrainSettings, *words: str) -> tuple[int, str]:
    """Runs the program, which starts its second process itself; both are gone when this returns."""
    command = [sys.executable, PROGRAM, str(folder), given.model_dump_json(exclude_unset=True), "dry", *words]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        # Not communicate: where the first process is killed, the second holds the pipe open for a while.
        code = process.wait(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.stderr is not None
    return code, process.stderr.read()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights that one process ends with; a batch of it holds the rows of both."""
    folder = tmp_path_factory.mktemp("alone")
    return fit(toy_model(0.0), TRAIN, VALID, collate, settings(), folder).weights


def assert_close(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    found = torch.load(folder / "final.pt", weights_only=True)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_data_parallel_equals_one_process(tmp_path, alone):
    given = settings(batch_size=8, devices=2, strategy="ddp")
    code, errors = two(tmp_path, given)
    assert code == 0, errors
    assert_close(tmp_path, alone)


def test_fully_sharded_killed_and_resumed_equals_one_process(tmp_path, alone):
    given = settings(batch_size=8, devices=2, strategy="fsdp")
    code, errors = two(tmp_path, given, "kill=8")
    assert code == -9, errors
    code, errors = two(tmp_path, given, "resume")
    assert code == 0, errors
    assert_close(tmp_path, alone)
