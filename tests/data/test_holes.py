"""Imputation tasks: what is hidden is seen by nobody who is asked for it, and simple fillings are exact."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data._holes import Hiding, hidden_cells, mean_hole
from hippodrome.data.imputation import carried, interpolated, naive, open_imputation, read_grids

NAN = float("nan")


def wide(rows: int = 200, holes: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, 3)).cumsum(0)
    if holes:
        values[50:56, 0] = values[120, 1] = NAN
    hours = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame({"date": hours, **{name: values[:, i] for i, name in enumerate("abc")}})


@pytest.mark.parametrize("how", ["points", "spans", "variates", "mixed"])
def test_hidden_cells_were_seen_and_are_about_the_share_asked_for(how: str) -> None:
    rng = np.random.default_rng(0)
    seen = rng.random((96, 4)) < 0.9
    hidden = [hidden_cells(seen, Hiding(how, 0.25, 6), rng) for _ in range(200)]
    assert not any((one & ~seen).any() for one in hidden)
    # Stretches overlap and reach over the ends, so that they cover somewhat less.
    assert 0.16 < np.mean([one.sum() / seen.sum() for one in hidden]) < 0.28
    if how == "variates":
        assert all((one == seen)[:, one.any(0)].all() and one.any(0).sum() == 1 for one in hidden)


def test_something_is_hidden_wherever_anything_is_seen() -> None:
    seen = np.zeros((5, 1), dtype=bool)
    seen[3] = True
    rng = np.random.default_rng(0)
    assert all((hidden_cells(seen, Hiding("points", 0.01, 1), rng) == seen).all() for _ in range(20))


def test_length_of_holes() -> None:
    values = np.array([[NAN, 1.0], [NAN, 1.0], [2.0, NAN], [NAN, 1.0], [2.0, 1.0]])
    assert mean_hole(values) == round((2 + 1 + 1) / 3)
    assert mean_hole(np.ones((4, 2))) == 0


def test_cells_held_back_are_never_seen_in_training_nor_where_they_are_asked_for() -> None:
    task = open_imputation(wide(), length=24, seed=3)
    held = {}
    for name, part in (("valid", task.valid), ("test", task.test)):
        for i in range(len(part)):
            _, start = part.starts[i]
            inputs, targets, _ = part[i]
            asked = ~targets.isnan()
            assert bool(inputs[asked].isnan().all())
            for step, variate in torch.nonzero(asked).tolist():
                held[start + step, variate] = name
    assert 0.1 < len(held) / 600 < 0.4
    for index in range(2 * len(task.train)):
        _, start = task.train.starts[index % len(task.train)]
        inputs, targets, _ = task.train[index]
        told = torch.nonzero(~(inputs.isnan() & targets.isnan())).tolist()
        assert not any((start + step, variate) in held for step, variate in told)


def test_training_draws_anew_on_each_visit_and_the_same_at_the_same() -> None:
    task = open_imputation(wide(), length=24)
    rows = len(task.train)
    assert task.train.renewed
    torch.testing.assert_close(task.train[5], task.train[5], equal_nan=True)
    assert not torch.equal(task.train[5].inputs.isnan(), task.train[5 + rows].inputs.isnan())


def test_parts_in_time_ask_for_nothing_of_the_part_before() -> None:
    task = open_imputation(wide(160), length=24, split="0.7/0.1/0.2", hide="points", mask_rate=0.5)
    ends = [0, 112, 128, 160]
    for part, low, high in zip((task.train, task.valid, task.test), ends, ends[1:], strict=False):
        for i in range(len(part)):
            _, start = part.starts[i]
            places = torch.nonzero(~part[i].targets.isnan())[:, 0] + start
            assert low <= int(places.min()) <= int(places.max()) < high


def test_windows_of_short_series_are_filled_up_and_every_series_is_asked() -> None:
    frames = [
        pd.DataFrame({"unique_id": key, "ds": range(size), "y": np.arange(size) + 0.5})
        for key, size in (("a", 10), ("b", 40))
    ]
    task = open_imputation(pd.concat(frames), length=16)
    assert {which for which, _ in task.train.starts} == {0, 1}
    batch = task.collate([task.train[i] for i in range(len(task.train))])
    assert batch.inputs.shape == (1 + 25, 16, 1)
    assert bool(batch.inputs[0, 10:].isnan().all())


def test_simple_fillings() -> None:
    values = np.array([NAN, 1.0, NAN, NAN, 4.0, NAN])[:, None]
    assert interpolated(values)[:, 0].tolist() == [1, 1, 2, 3, 4, 4]
    assert carried(values)[:, 0].tolist() == [1, 1, 1, 1, 4, 4]
    frame = wide(holes=False)
    np.testing.assert_allclose(
        carried(np.where(np.random.default_rng(0).random((50, 1)) < 0.5, NAN, frame[["a"]][:50])),
        pd.DataFrame(np.where(np.random.default_rng(0).random((50, 1)) < 0.5, NAN, frame[["a"]][:50]))
        .ffill()
        .bfill(),
    )


def test_naive_errors_are_of_the_cells_asked_for() -> None:
    task = open_imputation(wide(), length=24)
    location, scale = (np.array(task.facts[name]) for name in ("location", "scale"))
    errors = []
    for i in range(len(task.test)):
        inputs, targets, _ = (None if part is None else part.double().numpy() for part in task.test[i])
        filled = pd.DataFrame(inputs).interpolate().bfill().ffill().fillna(pd.Series(location)).to_numpy()
        errors.append(((filled - targets) / scale)[~np.isnan(targets)])
    found = naive(task.test, location, scale)["linear interpolation"]
    assert found["mse"] == pytest.approx(np.square(np.concatenate(errors)).mean(), rel=1e-6)
    assert found["mae"] == pytest.approx(np.abs(np.concatenate(errors)).mean(), rel=1e-6)


def test_rows_of_a_long_table_are_those_of_its_series() -> None:
    frame = pd.DataFrame({"unique_id": ["a", "b", "a", "b"], "ds": [1, 1, 2, 2], "y": [1.0, 2.0, 3.0, NAN]})
    grids = read_grids(frame)
    assert [(one.name, one.rows.tolist()) for one in grids.series] == [("a", [0, 2]), ("b", [1, 3])]
    assert grids.names == ["y"]


def test_the_source_of_a_table_makes_it_where_the_kind_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "power.csv"
    wide().to_csv(path, index=False)
    task = open_source(path, kind="imputation", length=24, hide="points")
    assert (task.kind, task.facts["channels"], task.details["missing"]) == ("imputation", 3, 7)
    assert task.details["hidden"]["how"] == "points"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 1}, "a window has 2 steps or more"),
        ({"mask_rate": 1.0}, r"lies inside \(0, 1\); got 1"),
        ({"targets": ["d"]}, "a column 'd'"),
        ({"split": "0.5/0.5/0.5"}, "add up to 1"),
    ],
)
def test_refuses_options_that_cannot_be(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_imputation(wide(), **options)


def test_refuses_columns_with_too_little_in_them() -> None:
    frame = wide()
    frame["b"] = NAN
    with pytest.raises(ValueError, match="'b' has none"):
        open_imputation(frame)
    frame.loc[3, "b"] = 1.0
    with pytest.raises(ValueError, match="'b' has 1"):
        open_imputation(frame)
