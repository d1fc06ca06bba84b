"""Series in tables: the published protocol, both forms, windows, faults that name file, row and column."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hippodrome.data import open_source
from hippodrome.data._series import borders
from hippodrome.data.tables import open_frame, read_series

SMALL = {"look_back": 4, "horizon": 2}


def hours(count: int, step: str = "h") -> list[str]:
    return [str(stamp) for stamp in pd.date_range("2024-01-01", periods=count, freq=step)]


def wide(tmp_path: Path, count: int = 60, name: str = "wide.csv") -> Path:
    path = tmp_path / name
    rows = [f"{stamp},{i},{i % 7}" for i, stamp in enumerate(hours(count))]
    path.write_text("date,a,b\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.data
@pytest.mark.parametrize(
    ("horizon", "windows", "table"),
    [
        (
            96,
            2785,
            {"repeat last": 1.2944, "train mean": 1.1099, "look-back mean": 0.7008, "seasonal naive": 0.5122},
        ),
        (
            720,
            2161,
            {"repeat last": 1.3351, "train mean": 1.0972, "look-back mean": 0.7116, "seasonal naive": 0.6554},
        ),
    ],
)
def test_published_protocol_of_etth1(data_folder: Path, horizon: int, windows: int, table: dict) -> None:
    task = open_source(data_folder / "ett" / "ETTh1.csv", horizon=horizon)
    assert task.details["borders"] == [8640, 11520, 14400]
    assert len(task.test) == windows  # type: ignore[arg-type]
    assert len(task.train) == 8640 - 96 - horizon + 1  # type: ignore[arg-type]
    assert (task.details["season"], task.details["split"], task.details["sampling"]) == (24, "ett", "1 hour")
    mean = [7.9377, 2.0210, 5.0798, 0.7462, 2.7818, 0.7885, 17.1283]
    deviation = [5.8127, 2.0901, 5.5188, 1.9264, 1.0235, 0.6302, 9.1765]
    assert task.facts["location"] == pytest.approx(mean, abs=5e-5)
    assert task.facts["scale"] == pytest.approx(deviation, abs=5e-5)
    found = {name: metrics["mse"] for name, metrics in task.naive().items()}
    assert found == pytest.approx(table, abs=5e-5)


@pytest.mark.data
def test_published_protocol_of_ettm1(data_folder: Path) -> None:
    task = open_source(data_folder / "ett" / "ETTm1.csv.gz")
    assert len(task.test) == 11425  # type: ignore[arg-type]
    assert task.details["borders"] == [34560, 46080, 57600]
    assert task.details["season"] == 96


def test_windows_of_a_wide_table(tmp_path: Path) -> None:
    task = open_source(wide(tmp_path), **SMALL)
    assert task.details["borders"] == [42, 48, 60]
    assert task.details["windows"] == {"train": 42 - 4 - 2 + 1, "valid": 6 - 2 + 1, "test": 12 - 2 + 1}
    assert task.facts["channels"] == 2
    first = task.test[0]
    assert first.past[:, 0].tolist() == [44, 45, 46, 47]
    assert first.future[:, 0].tolist() == [48, 49]
    last = task.test[len(task.test) - 1]  # type: ignore[arg-type]
    assert last.future[:, 0].tolist() == [58, 59]
    batch = task.collate([first, last])
    assert batch.past.shape == (2, 4, 2)
    assert task.facts["location"][0] == pytest.approx(20.5)
    assert task.facts["scale"][0] == pytest.approx(np.std(np.arange(42)))
    with pytest.raises(IndexError):
        task.test[len(task.test)]  # type: ignore[arg-type]


def test_naive_forecasts_by_hand(tmp_path: Path) -> None:
    task = open_source(wide(tmp_path), season=7, targets=["b"], **SMALL)
    found = task.naive()
    assert found["seasonal naive"]["mse"] == pytest.approx(0)
    values = np.arange(60) % 7
    errors = [values[s + h] - values[s - 1] for s in range(48, 59) for h in range(2)]
    scale = np.std(values[:42])
    assert found["repeat last"]["mse"] == pytest.approx(np.mean(np.square(errors)) / scale**2)
    assert found["repeat last"]["mae"] == pytest.approx(np.mean(np.abs(errors)) / scale)


def test_long_table_is_one_series_an_id(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "unique_id": ["a"] * 40 + ["b"] * 60,
            "ds": hours(40) + hours(60),
            "y": [*range(40), *range(100, 160)],
        }
    )
    frame = frame.sort_values("ds", kind="stable")
    path = tmp_path / "long.csv"
    frame.to_csv(path, index=False)
    task = open_source(path, **SMALL)
    assert task.details["series"] == 2
    assert task.facts["channels"] == 1
    assert len(task.test) == (8 - 1) + (12 - 1)  # type: ignore[arg-type]
    assert task.test[0].future[:, 0].tolist() == [32, 33]
    assert task.test[7].future[:, 0].tolist() == [148, 149]
    assert task.test[17].future[:, 0].tolist() == [158, 159]
    same = open_frame(frame, **SMALL)
    assert same.facts == task.facts
    assert torch.equal(same.test[9].past, task.test[9].past)


def test_parquet_and_gzip_read_alike(tmp_path: Path) -> None:
    path = wide(tmp_path)
    frame = pd.read_csv(path, parse_dates=["date"])
    frame.to_parquet(tmp_path / "wide.parquet")
    (tmp_path / "zip.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    tasks = [open_source(tmp_path / name, **SMALL) for name in ("wide.csv", "wide.parquet", "zip.csv.gz")]
    assert tasks[0].facts == tasks[1].facts == tasks[2].facts
    assert tasks[1].details["sampling"] == "1 hour"


def test_index_of_a_frame_is_a_column() -> None:
    frame = pd.DataFrame({"a": range(60)}, index=pd.date_range("2024", periods=60, freq="D"))
    for named in (frame, frame.rename_axis("when")):
        task = open_frame(named, **SMALL)
        assert (task.details["variates"], task.details["sampling"]) == (["a"], "1 day")
    holes = frame.astype("Int64")
    holes.iloc[5] = pd.NA
    assert open_frame(holes, **SMALL).details["missing"] == 1


def test_missing_cells_are_nan_and_counted(tmp_path: Path) -> None:
    path = wide(tmp_path)
    text = path.read_text().replace(",45,", ",,").replace(",50,", ",NA,")
    path.write_text(text)
    task = open_source(path, **SMALL)
    assert task.details["missing"] == 2
    assert bool(task.test[0].past[:, 0].isnan().any())
    assert np.isfinite(task.naive()["repeat last"]["mse"])


def test_series_of_a_file_for_a_forecast(tmp_path: Path) -> None:
    (name,) = found = read_series(wide(tmp_path))
    stamps, values = found[name]
    assert name == "wide"
    assert values.shape == (60, 2)
    assert str(stamps[1])[:19] == "2024-01-01T01:00:00"


@pytest.mark.parametrize(
    ("step", "name", "season"),
    [
        ("15min", "15 minutes", 96),
        ("h", "1 hour", 24),
        ("D", "1 day", 7),
        ("W", "7 days", 52),
        ("MS", "1 month", 12),
        ("ME", "1 month", 12),
        ("QS", "3 months", 4),
        ("YS", "1 year", 1),
        ("B", "1 working day", 5),
        ("s", "1 second", 60),
    ],
)
def test_season_comes_from_the_stamps(tmp_path: Path, step: str, name: str, season: int) -> None:
    path = tmp_path / "steps.csv"
    path.write_text("ds,y\n" + "\n".join(f"{stamp},{i}" for i, stamp in enumerate(hours(60, step))))
    details = open_source(path, **SMALL).details
    assert (details["sampling"], details["season"]) == (name, season)


@pytest.mark.parametrize("rows", [["1871", "1872", "1873"], ["20240131", "20240201", "20240202"]])
def test_years_and_compact_dates(tmp_path: Path, rows: list[str]) -> None:
    path = tmp_path / "years.csv"
    path.write_text("year,y\n" + "\n".join(f"{row},1.5" for row in rows))
    stamps, _ = read_series(path)["years"]
    assert stamps.dtype.kind == ("i" if rows[0] == "1871" else "M")


def test_splits() -> None:
    assert borders(14400, "ett", "x") == (8640, 11520, 14400)
    assert borders(69680, "ettm", "x") == (34560, 46080, 57600)
    assert borders(101, (0.7, 0.1, 0.2), "x") == (70, 81, 101)
    assert borders(100, "0.6/0.2/0.2", "x") == (60, 80, 100)
    for wrong in ("0.7/0.3", "a/b/c", (0.5, 0.5, 0.5), "ETT"):
        with pytest.raises(ValueError, match="three positive fractions that add up to 1"):
            borders(100, wrong, "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes the first 14400 rows; there are 100"):
        borders(100, "ett", "x")


def faulty(rows: str, header: str = "date,a,b") -> str:
    return header + "\n" + rows


GOOD = "2024-01-01 00:00,1,2\n2024-01-01 01:00,2,3\n2024-01-01 02:00,3,4\n"

FAULTS = {
    "empty": ("", "expected a header line and rows; got an empty file"),
    "header alone": ("date,a,b\n", "expected rows of data; got a header alone"),
    "no header": (
        "1,2,3\n4,5,6\n",
        r"names of columns in the first line; got numbers \(1, 2, 3\)\. Add a header",
    ),
    "twice": (faulty(GOOD, "date,a,a"), "a different name for each column; got 'a' twice"),
    "bad cell": (
        faulty(GOOD + "2024-01-01 03:00,12O,5\n"),
        r"row 4 \(data rows from 1, header not counted\), column 'a': expected a number; got '12O'\.",
    ),
    "text column": (
        faulty("2024-01-01 00:00,1,north\n2024-01-01 01:00,2,south\n"),
        "row 1 .*column 'b': expected a number; got 'north'",
    ),
    "infinite": (
        faulty(GOOD + "2024-01-01 03:00,inf,5\n"),
        "row 4 .*column 'a': expected a finite number; got 'inf'",
    ),
    "short row": (
        faulty(GOOD + "2024-01-01 03:00,4\n"),
        "row 4 .*: expected 3 cells as in the header; got 2",
    ),
    "long row": (faulty("2024-01-01,1,2,3\n" + GOOD), "row 1 .*: expected 3 cells as in the header; got 4"),
    "bad stamp": (
        faulty(GOOD + "yesterday,4,5\n"),
        "row 4 .*column 'date': expected a date and time like the rows before; got 'yesterday'",
    ),
    "duplicate": (
        faulty(GOOD + "2024-01-01 02:00,4,5\n"),
        "row 4 .*column 'date': expected stamps that increase; got 2024-01-01 02:00:00 a second time",
    ),
    "unsorted": (
        faulty(GOOD + "2024-01-01 01:30,4,5\n"),
        "row 4 .*stamps that increase; got 2024-01-01 01:30:00 after 2024-01-01 02:00:00. Sort the rows",
    ),
    "gap": (
        faulty(GOOD + "2024-01-01 05:00,4,5\n"),
        "row 4 .*column 'date': expected one step throughout, 1 hour as in most rows; got 3 hours from",
    ),
    "no y": (
        faulty("a,2024-01-01,1\n", "unique_id,ds,value"),
        "expected a column 'y'; got columns 'unique_id', 'ds'",
    ),
    "no ds": (faulty("a,2024-01-01,1\n", "unique_id,date,y"), "expected a column 'ds'; got columns"),
    "mixed": (
        faulty(
            "".join(f"a,2024-01-0{i},1\n" for i in range(1, 6))
            + "".join(f"b,2024-01-01 0{i}:00,1\n" for i in range(6)),
            "unique_id,ds,y",
        ),
        "row 6 .*column 'ds': expected one sampling for all series, 1 day as in .* got 1 hour in series 'b'",
    ),
    "only stamps": (
        faulty("2024-01-01\n2024-01-02\n", "date"),
        "expected a column of numbers; got 'date' alone",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(tmp_path: Path, name: str) -> None:
    content, words = FAULTS[name]
    path = tmp_path / "sales.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        open_source(path, **SMALL)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"horizon": 50},
            "horizon of 50 behind a look-back of 4 fits nowhere into the train part",
        ),
        ({"horizon": 7}, "fits nowhere into the validation part, which leaves room for 6 steps"),
        ({"look_back": 0}, "are 1 or more; got 0, 2 and 24"),
        ({"targets": ["c"]}, "expected a column 'c'; got columns 'date', 'a', 'b'"),
        ({"time": "when"}, "expected a column 'when'"),
        ({"split": "ett"}, "takes the first 14400 rows; there are 60"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_source(wide(tmp_path), **{**SMALL, **options})


def test_variate_without_a_value_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("ds,y,z\n" + "".join(f"{s},1,\n" for s in hours(60)))
    with pytest.raises(ValueError, match="variate 2 has none in the train part"):
        open_source(path, **SMALL)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"date,a\n2024-01-01,\xff\xfe\n")
    with pytest.raises(ValueError, match=r"bad\.csv: expected text in UTF-8"):
        open_source(path, **SMALL)
    broken = tmp_path / "bad.parquet"
    broken.write_bytes(b"PAR1 nothing")
    with pytest.raises(
        ValueError, match=r"bad\.parquet: expected a Parquet file; got one that cannot be read"
    ):
        open_source(broken, **SMALL)
