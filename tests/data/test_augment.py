"""Sequences standardized and varied: what stays, what is lost, and that training alone sees variety."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data._augment import standardized, varied

NAN = float("nan")


def test_standardized_loses_level_and_size_of_each_channel() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 2))
    found = standardized(values)
    np.testing.assert_allclose(found, (values - values.mean(0)) / values.std(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(standardized(7 + 30 * values), found, rtol=1e-4, atol=1e-5)


def test_standardized_leaves_constants_at_zero_and_holes_as_holes() -> None:
    values = np.stack([np.full(6, 1e6 + 0.1), [1.0, NAN, 3.0, NAN, 5.0, 3.0], np.full(6, NAN)], 1)
    found = standardized(values)
    assert (found[:, 0] == 0).all()
    seen = values[:, 1][~np.isnan(values[:, 1])]
    np.testing.assert_allclose(found[[0, 2, 4, 5], 1], (seen - seen.mean()) / seen.std(), rtol=1e-6)
    assert np.isnan(found[[1, 3], 1]).all()
    assert np.isnan(found[:, 2]).all()


def test_varied_is_near_the_sequence_and_nearer_where_less_is_asked() -> None:
    t = np.linspace(0, 6, 80)
    values = np.stack([np.sin(t), np.cos(t) + 4], 1).astype(np.float32)
    off = {}
    for strength in (0.0, 0.1, 1.0):
        rng = np.random.default_rng(0)
        drawn = [varied(values, strength, rng) for _ in range(20)]
        assert all(one.shape == values.shape and one.dtype == np.float32 for one in drawn)
        off[strength] = np.mean([np.abs(one - values).mean() for one in drawn])
    assert off[0.0] < 1e-6
    assert off[0.0] < off[0.1] < off[1.0] < 0.3


def test_a_warp_moves_time_forward_alone() -> None:
    ramp = np.arange(100.0)[:, None]
    rng = np.random.default_rng(0)
    for _ in range(20):
        warped = varied(ramp, 1.0, rng)[:, 0]
        noise = 3 * 0.03 * ramp.std()
        assert (np.diff(warped) > -2 * noise).all()
        assert warped[0] < 20 < 80 < warped[-1]


def test_a_source_of_cases_is_varied_in_training_alone(labelled_cases: Path) -> None:
    plain = open_source(labelled_cases)
    task = open_source(labelled_cases, augment=1.0, normalize=True)
    assert (task.details["augment"], task.details["normalized"]) == (1.0, True)
    rows = len(task.train)
    assert task.train.renewed
    first, again, later = (task.train[i].inputs for i in (0, 0, rows))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert task.train[0].label == plain.train[0].label
    for part, raw in ((task.valid, plain.valid), (task.test, plain.test)):
        np.testing.assert_allclose(part[0].inputs, standardized(raw[0].inputs.numpy()), rtol=1e-6)
    with pytest.raises(ValueError, match=r"0 or more; got -1"):
        open_source(labelled_cases, augment=-1.0)


@pytest.fixture
def labelled_cases(tmp_path: Path) -> Path:
    head = "@problemName Waves\n@timeStamps false\n@univariate true\n@equalLength true\n@seriesLength 12\n"
    head += "@classLabel true down up\n@data\n"
    rng = np.random.default_rng(0)
    for part in ("TRAIN", "TEST"):
        lines = []
        for i in range(20):
            values = (1 if i % 2 else -1) * np.linspace(-1, 1, 12) + 0.1 * rng.normal(size=12)
            lines.append(",".join(f"{v:.3f}" for v in values) + (":up" if i % 2 else ":down"))
        (tmp_path / f"Waves_{part}.ts").write_text(head + "\n".join(lines) + "\n")
    return tmp_path / "Waves_TRAIN.ts"
