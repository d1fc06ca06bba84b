"""Checkpoints: atomic, two kept, damage is seen and passed over, generators go back where they were."""

import random
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from hippodrome.train import checkpoint


def state(value: float) -> dict:
    return {
        "weights": {"w": torch.full((1000,), value)},
        "random": checkpoint.random_states(torch.device("cpu")),
    }


def test_what_is_written_is_read(tmp_path):
    path = checkpoint.write(tmp_path, 5, state(1.5))
    assert checkpoint.latest(tmp_path) == path
    assert torch.equal(checkpoint.read(path)["weights"]["w"], torch.full((1000,), 1.5))


def test_the_last_two_are_kept(tmp_path):
    for step in (5, 10, 100, 15, 99_999_999, 100_000_000):
        checkpoint.write(tmp_path, step, state(step))
    assert [p.name[5:-12] for p in checkpoint.listed(tmp_path)] == ["100000000", "99999999"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_step_written_again_replaces_the_first(tmp_path):
    checkpoint.write(tmp_path, 5, state(1))
    path = checkpoint.write(tmp_path, 5, state(2))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "empty", "flip"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path, damage):
    good = checkpoint.write(tmp_path, 5, state(1))
    bad = checkpoint.write(tmp_path, 10, state(2))
    raw = bytearray(bad.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    bad.write_bytes({"cut": raw[:-100], "empty": b"", "flip": raw}[damage])
    with pytest.warns(UserWarning, match="damaged; taking the one before"):
        assert checkpoint.latest(tmp_path) == good


def test_nothing_whole_is_nothing(tmp_path):
    assert checkpoint.latest(tmp_path) is None


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"before")

    def fill(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_atomically(target, fill)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_a_file_ends_in_a_sentence(tmp_path):
    (tmp_path / "place").write_text("")
    with pytest.raises(OSError, match="checkpoint of step 5 could not be written"):
        checkpoint.write(tmp_path / "place", 5, state(1))


def test_generators_go_back_through_a_file(tmp_path):
    path = checkpoint.write(tmp_path, 1, state(0))

    def drawn():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.randn(), random.random()

    # The shape checks of the test run draw from Python's generator, so both draws follow a restoration.
    draws = []
    for _ in range(2):
        checkpoint.restore_random(checkpoint.read(path)["random"], torch.device("cpu"))
        draws.append(drawn())
    assert draws[0] == draws[1]


def test_a_file_that_is_stopped_half_way_leaves_nothing(tmp_path: Path) -> None:
    def stopped(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "there.csv").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_atomically(tmp_path / "there.csv", stopped)
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_bytes() == b"before"


def test_a_folder_that_cannot_be_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for place, words in (("file", "is there already"), ("file/a/b", "folder to write to"), ("", "already")):
        with pytest.raises(ValueError, match=words):
            checkpoint.check_folder(tmp_path / place)
    checkpoint.check_folder(tmp_path / "new/a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
