"""The quarter-hourly ETT file: the public protocol's naive errors to the digits, and its sister's hours."""

from pathlib import Path

import numpy as np
import pytest

from hippodrome.data import open_source
from hippodrome.data.tables import read_series

pytestmark = pytest.mark.data

TABLES = {
    96: {"repeat last": 1.2139, "train mean": 1.1053, "look-back mean": 0.6930, "seasonal naive": 0.4227},
    720: {"repeat last": 1.3223, "train mean": 1.1065, "look-back mean": 0.7457, "seasonal naive": 0.5739},
}


@pytest.mark.parametrize(("horizon", "windows"), [(96, 11425), (720, 10801)])
def test_naive_errors_are_those_of_the_protocol(data_folder: Path, horizon: int, windows: int) -> None:
    task = open_source(data_folder / "ett" / "ETTm1.csv.gz", look_back=96, horizon=horizon)
    assert len(task.test) == windows  # type: ignore[arg-type]
    assert task.details["borders"] == [34560, 46080, 57600]
    found = {name: metrics["mse"] for name, metrics in task.naive().items()}
    assert found == pytest.approx(TABLES[horizon], abs=5e-5)


def test_every_fourth_quarter_is_the_hour(data_folder: Path) -> None:
    (hours,) = read_series(data_folder / "ett" / "ETTh1.csv").values()
    (quarters,) = read_series(data_folder / "ett" / "ETTm1.csv.gz").values()
    assert (hours[0] == quarters[0][::4]).all()
    assert float(np.abs(hours[1] - quarters[1][::4]).max()) < 1e-12
