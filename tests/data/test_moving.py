"""Moving pictures: paths that bounce, the same videos from the same seed, and files with faults."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data.video import Moving


def archive(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "digits.npz"
    np.savez(path, **arrays)
    return path


def blocks(n: int, value: int = 255) -> np.ndarray:
    return np.full((n, 8, 8), value, dtype=np.uint8)


def test_a_picture_moves_by_a_tenth_of_its_room_and_bounces() -> None:
    dot = np.ones((1, 2, 2, 1), dtype=np.float32)
    frames = Moving(dot, 3, 60, 102, 1, 5)[1].frames[..., 0]
    assert frames.shape == (60, 102, 102)
    assert (frames.sum((1, 2)) == 4).all()
    place = torch.stack([f.nonzero().amin(0) for f in frames]).double()
    assert place.min() >= 0
    assert place.max() <= 100
    steps = place.diff(dim=0)
    # Where it meets no edge it goes straight on, a tenth of the 100 pixels a frame.
    straight = ((place[:-1] > 11) & (place[:-1] < 89)).all(1)
    length = steps[straight].norm(dim=1)
    assert straight.sum() > 10
    assert ((length - 10).abs() < 1.5).all()
    assert (steps.sign().diff(dim=0) != 0).any()


def test_the_brighter_value_shows() -> None:
    two = np.stack([np.full((4, 4, 1), v, dtype=np.float32) for v in (0.25, 0.75)])
    task = Moving(two, 40, 8, 8, 6, 0)
    values = torch.cat([task[i].frames.flatten() for i in range(10)]).unique()
    assert values.tolist() == [0, 0.25, 0.75]


def test_the_same_seed_gives_the_same_videos_and_parts_differ() -> None:
    one, other, third = (open_source("moving-shapes", count=10, seed=s) for s in (1, 1, 2))
    assert (len(one.train), len(one.valid), len(one.test)) == (10, 1, 1)
    assert torch.equal(one.train[3].frames, other.train[3].frames)
    assert not torch.equal(one.train[3].frames, third.train[3].frames)
    assert not torch.equal(one.train[0].frames, one.valid[0].frames)
    assert one.facts == {"size": [32, 32], "colours": 1, "patch": 4, "context": 10}
    frames = one.collate([one.train[0], one.train[1]]).frames
    assert frames.shape == (2, 20, 32, 32, 1)
    assert frames.min() == 0
    assert frames.max() == 1
    with pytest.raises(IndexError):
        one.train[10]


def test_pictures_of_one_part_are_not_shown_in_another(tmp_path: Path) -> None:
    path = archive(tmp_path, x_train=blocks(10), x_test=blocks(3, 51))
    task = open_source(path, kind="video", count=20, size=16, length=4, objects=1)
    assert task.kind == "video"
    assert {float(task.train[i].frames.max()) for i in range(20)} == {1.0}
    assert float(task.test[0].frames.max()) == pytest.approx(0.2)
    assert task.details["pictures"] == {"train": 8, "valid": 2, "test": 3}
    # Without a test part a fifth of the pictures is it.
    path = archive(tmp_path, inputs=blocks(10))
    assert open_source(path, kind="video").details["pictures"] == {"train": 6, "valid": 2, "test": 2}


def test_wide_pictures_are_shrunk_to_half_of_a_frame(tmp_path: Path) -> None:
    pictures = np.zeros((10, 28, 28), dtype=np.uint8)
    pictures[:, ::2] = 255
    task = open_source(archive(tmp_path, inputs=pictures), kind="video", size=32, objects=1, length=2)
    frames = task.train[0].frames
    assert float(frames.max()) == 0.5
    assert int((frames[0] > 0).sum()) == 14 * 14


def test_what_a_naive_guess_scores() -> None:
    task = open_source("moving-shapes", count=20, length=6)
    naive = task.naive()
    frames = torch.stack([task.test[i].frames for i in range(2)])
    copied = (frames[:, 1:] - frames[:, :-1]).square().mean()
    assert naive["last frame"]["mse"] == pytest.approx(float(copied), rel=1e-5)
    assert naive["last frame"]["open_mse"] > naive["last frame"]["mse"]
    assert naive["last frame"]["ssim"] > naive["train mean"]["ssim"]


def test_faults_are_told_in_a_sentence(tmp_path: Path) -> None:
    for arrays, said in (
        ({"values": np.zeros((3, 4))}, "got neither"),
        ({"inputs": np.zeros((3, 4, 4))}, "uint8"),
        ({"inputs": blocks(1)}, "a picture at least"),
    ):
        with pytest.raises(ValueError, match=said):
            open_source(archive(tmp_path, **arrays), kind="video")
    with pytest.raises(ValueError, match="multiple of 4"):
        open_source("moving-shapes", size=30)
    with pytest.raises(ValueError, match="two frames"):
        open_source("moving-shapes", length=1)
    (tmp_path / "broken.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match="an archive of arrays"):
        open_source(tmp_path / "broken.npz", kind="video")
