"""Many series read at once: samplings, what follows, absent rows, calendars, covariates, categories."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hippodrome.data import _clock, open_source
from hippodrome.data._fitting import before, default_look_back, fit_task, own_scales, scaled
from hippodrome.data._panel import Reading, read_panel
from hippodrome.data._series import Series, SeriesWindows, collate, origins

H = {"look_back": 4, "horizon": 2}


def stamps(freq: str, count: int, start: str = "2023-01-02") -> np.ndarray:
    return pd.date_range(start, periods=count, freq=freq).to_numpy().astype("datetime64[ns]")


def long(**series: tuple[str, int]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"unique_id": key, "ds": stamps(freq, count), "y": np.arange(float(count))})
        for key, (freq, count) in series.items()
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("freq", ["7min", "h", "6h", "D", "B", "W", "MS", "ME", "QS", "QE", "YS", "YE"])
def test_stamps_go_on_as_pandas_has_them(freq: str) -> None:
    every = stamps(freq, 40)
    beat = _clock.rhythm(every[:20], np.array([0, 20]))
    assert (_clock.ahead(beat.of(0), every[19:20], 20)[0] == every[20:]).all()


def test_months_on_a_day_that_not_all_have_end_where_the_month_does() -> None:
    one = _clock.Sampling("1 month", 12, "month", 1)
    found = _clock.ahead(one, np.array(["2024-01-30T06:00"], "datetime64[ns]"), 3)[0]
    assert [str(stamp)[:13] for stamp in found] == ["2024-02-29T06", "2024-03-30T06", "2024-04-30T06"]


def test_short_series_take_the_sampling_of_most() -> None:
    # Three first days of months 31 days apart, a month end, and two working days among months.
    frame = long(a=("MS", 30), b=("MS", 24))
    short = pd.DataFrame(
        {"unique_id": "c", "ds": pd.to_datetime(["2023-07-01", "2023-08-01", "2023-09-01"]), "y": 1.0}
    )
    one = pd.DataFrame({"unique_id": "d", "ds": pd.to_datetime(["2023-07-15"]), "y": 1.0})
    panel = read_panel(pd.concat([short, frame, one]), Reading())
    assert (panel.rhythm.codes == panel.rhythm.usual).all()
    assert panel.usual[:2] == ("1 month", 12)
    days = read_panel(long(a=("B", 30), b=("B", 3)), Reading())
    assert {days.rhythm.of(i).name for i in range(2)} == {"1 working day"}


def test_rows_of_series_that_alternate_are_gathered_in_order() -> None:
    frame = long(b=("D", 3), a=("D", 2)).sort_values("ds", kind="stable")
    panel = read_panel(frame, Reading())
    assert panel.ids == ["b", "a"]
    assert panel.offsets.tolist() == [0, 3, 5]
    assert panel.values[:, 0].tolist() == [0, 1, 2, 0, 1]
    assert frame["y"].to_numpy()[panel.rows].tolist() == panel.values[:, 0].tolist()


@pytest.mark.parametrize("freq", ["h", "D", "B", "MS", "ME", "QE", "YS"])
def test_absent_rows_are_put_in(freq: str) -> None:
    every = stamps(freq, 30, "2024-01-01")
    kept = np.delete(np.arange(30), [3, 11, 12, 20])
    frame = pd.DataFrame({"ds": every[kept], "y": kept * 1.0})
    with pytest.raises(ValueError, match=r"row 4 .*one step throughout.*gaps='fill'"):
        read_panel(frame, Reading())
    panel = read_panel(frame, Reading(gaps="fill"))
    assert (panel.times == every).all()
    expected = np.arange(30.0)
    expected[[3, 11, 12, 20]] = np.nan
    np.testing.assert_array_equal(panel.values[:, 0], expected)
    with pytest.raises(ValueError, match="one step throughout"):
        read_panel(
            frame.assign(ds=every[kept] + np.arange(26).astype("timedelta64[s]")), Reading(gaps="fill")
        )


def test_several_frequencies_at_once() -> None:
    frame = long(a=("h", 20), b=("D", 30), c=("D", 9))
    with pytest.raises(ValueError, match=r"1 day as in most; got 1 hour in series 'a'.*frequencies='mixed'"):
        read_panel(frame, Reading())
    panel = read_panel(frame, Reading(frequencies="mixed", calendar=True))
    assert [panel.rhythm.of(i).name for i in range(3)] == ["1 hour", "1 day", "1 day"]
    assert panel.reading.calendar == ["hour", "weekday", "day", "yearday"]
    with pytest.raises(ValueError, match="frequencies is 'one' or 'mixed'; got 'two'"):
        read_panel(frame, Reading(frequencies="two"))  # type: ignore[arg-type]


def test_calendar_features_are_those_of_the_public_protocol() -> None:
    when = pd.date_range("2023-12-30 05:07:31", periods=500, freq="31h")
    names = ("second", "minute", "hour", "weekday", "day", "yearday", "week", "month")
    found = _clock.calendar(when.to_numpy().astype("datetime64[ns]"), names)
    week = when.isocalendar().week.to_numpy().astype(float)
    expected = [
        when.second / 59,
        when.minute / 59,
        when.hour / 23,
        when.dayofweek / 6,
        (when.day - 1) / 30,
        (when.dayofyear - 1) / 365,
        (week - 1) / 52,
        (when.month - 1) / 11,
    ]
    np.testing.assert_allclose(found, np.stack(expected, 1) - 0.5, atol=1e-12)


@pytest.mark.parametrize(
    ("freq", "names"),
    [
        ("s", ["second", "minute", "hour", "weekday", "day", "yearday"]),
        ("15min", ["minute", "hour", "weekday", "day", "yearday"]),
        ("B", ["weekday", "day", "yearday"]),
        ("W", ["day", "week"]),
        ("QS", ["month"]),
        ("YS", []),
    ],
)
def test_the_calendar_fits_the_step(freq: str, names: list[str]) -> None:
    panel = read_panel(pd.DataFrame({"ds": stamps(freq, 20), "y": 1.0}), Reading(calendar=True))
    assert panel.reading.calendar == names
    assert (panel.known is None) == (not names)


def test_irregular_steps_are_told_relative_to_their_median() -> None:
    seconds = np.array([0.0, 2.0, 4.0, 5.0, 9.0])
    panel = read_panel(pd.DataFrame({"time": seconds, "y": 1.0}), Reading(irregular=True))
    assert panel.dt is not None
    assert panel.known is not None
    np.testing.assert_allclose(panel.dt, [1, 1, 1, 0.5, 2])
    np.testing.assert_allclose(panel.known[:, 0], np.log(panel.dt))
    dates = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds[::-1].max() - seconds[::-1], unit="s")
    again = read_panel(pd.DataFrame({"ds": dates, "y": 1.0}), panel.reading._replace(time=None, step=1e9))
    np.testing.assert_allclose(again.dt, [1, 4, 1, 2, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dates or whole numbers; got 0\.5\. Say irregular=True"):
        read_panel(pd.DataFrame({"time": seconds / 2 + 0.5, "y": 1.0}), Reading())


def test_static_columns_and_frames_become_numbers_and_categories() -> None:
    frame = long(a=("D", 4), b=("D", 3), c=("D", 2))
    frame["size"] = frame["unique_id"].map({"a": 3, "b": 1, "c": 2})
    beside = pd.DataFrame({"unique_id": ["c", "a", "b"], "shop": ["old", "new", None]})
    panel = read_panel(frame, Reading(static=["size"]), beside)
    assert panel.reading.levels == {"size": None, "shop": ["new", "old"]}
    assert panel.static is not None
    assert panel.static.tolist() == [[3, 1, 0], [1, 0, 0], [2, 0, 1]]
    kept = json.loads(json.dumps(panel.reading.kept()))
    again = read_panel(frame, Reading.again(kept), beside)
    np.testing.assert_array_equal(again.static, panel.static)  # type: ignore[arg-type]
    assert again.reading.kept() == kept
    reading = Reading.again(kept)
    for static, words in (
        (
            beside.replace("old", "odd"),
            "categories learned, 'new', 'old'; got 'odd' of series 'c'",
        ),
        (beside.head(2), "a row for every series; got none for 'b'"),
        (pd.concat([beside, beside]), "one row a series; got several of 'c'"),
        (None, "the static column 'shop'; got columns .*static_df"),
    ):
        with pytest.raises(ValueError, match=words):
            read_panel(frame, reading, static)
    with pytest.raises(
        ValueError, match=r"row 2 .*column 'y': expected one value of a static column throughout"
    ):
        read_panel(frame.assign(z=1), Reading(targets=["z"], static=["y"]))


def test_covariates_of_a_file_reach_the_windows(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    frame = pd.DataFrame({"ds": stamps("D", 60), "y": np.arange(60.0), "rain": np.arange(60) * 2.0})
    frame["price"] = np.arange(60) * 3.0
    frame.to_csv(path, index=False)
    task = open_source(path, observed=["rain"], known=["price"], calendar=True, **H)
    assert (task.facts["channels"], task.facts["observed"], task.facts["known"]) == (1, 1, 4)
    item = task.test[0]
    assert item.past[0, :3].tolist() == [44, 88, 132]
    assert item.known[0, 0] == 48 * 3
    weekday = pd.Timestamp(frame["ds"][48]).dayofweek
    assert item.known[0, 1] == pytest.approx(weekday / 6 - 0.5)
    assert task.details["reading"]["calendar"] == ["weekday", "day", "yearday"]
    with pytest.raises(ValueError, match="'rain' was named twice"):
        open_source(path, observed=["rain"], known=["rain"], **H)
    with pytest.raises(ValueError, match="expected a column 'oil'"):
        open_source(path, known=["oil"], **H)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('a,b\n1,"2"\n3,4\n\n', ('"2"', '"2,5"', "row 1 .*column 'b': expected a number; got '2,5'")),
        ("a,b\r\n1,2\r\n3,4\r\n", ("3,4", "\r\n3,4", "row 2 .*expected 2 cells as in the header; got 0")),
        ("\ufeffa;b\n1;2\n3;4", ("3;4", "3", "row 2 .*expected 2 cells as in the header; got 1")),
        ('a,b\n"1",2\n3,4', ("3,4", "3", "row 2 .*expected 2 cells as in the header; got 1")),
    ],
)
def test_quotes_and_line_ends_are_read_as_csv_has_them(tmp_path: Path, text: str, fault: tuple) -> None:
    path = tmp_path / "odd.csv"
    path.write_text(text, newline="")
    assert read_panel(path, Reading()).values.tolist() == [[1, 2], [3, 4]]
    right, wrong, words = fault
    path.write_text(text.replace(right, wrong), newline="")
    with pytest.raises(ValueError, match=words):
        read_panel(path, Reading())


def test_names_of_series_are_whole() -> None:
    frame = long(a=("D", 3), b=("D", 3))
    with pytest.raises(ValueError, match=r"row 4 .*a name of the series; got none"):
        read_panel(frame.replace("b", None), Reading())
    frame["unique_id"] = pd.Series([1, 1, 1, "1", "1", "1"], dtype=object)
    with pytest.raises(ValueError, match=r"row 4 .*got '1', once as text and once as a number"):
        read_panel(frame, Reading())
    frame = long(a=("D", 3))
    frame.loc[1, "ds"] = pd.NaT
    with pytest.raises(ValueError, match=r"row 2 .*a stamp in every row"):
        read_panel(frame, Reading())


def test_short_series_are_filled_on_their_left_and_shorter_ones_teach_nothing() -> None:
    frame = long(a=("D", 40), b=("D", 9), c=("D", 3), d=("D", 2))
    panel = read_panel(frame, Reading())
    task = fit_task(panel, 8, 2, 0.1, "global")
    # a: 36 to learn from, 4 to choose by; b: 7, of which the first 2 to 5 are a past, and 2; c: 3 and none.
    assert task.details["windows"] == {"train": (36 - 8 - 2 + 1) + 4 + 1, "valid": 3 + 1}
    assert [int((~task.train[i].past.isnan()).sum()) for i in range(26, 32)] == [8, 2, 3, 4, 5, 1]
    assert task.train[31].future[:, 0].tolist() == [1, 2]
    assert task.valid[3].past[:, 0].tolist()[-8:] == pytest.approx([np.nan, 0, 1, 2, 3, 4, 5, 6], nan_ok=True)
    assert fit_task(panel, 8, 2, 0.0, "global").details["windows"]["valid"] == 0
    with pytest.raises(
        ValueError, match="a horizon of 40 is learned from series of 41 rows or more; the longest"
    ):
        fit_task(panel, 8, 40, 0.1, "global")
    assert default_look_back(np.array([10_000]), 96) == 384
    assert default_look_back(np.array([100]), 5) == 47
    assert default_look_back(np.array([3]), 1) == 1


def test_each_series_has_its_own_scale() -> None:
    frame = long(a=("D", 5), b=("D", 4), c=("D", 3))
    frame["y"] = [1, 2, 3, 4, np.nan, 1e6, 3e6, 1e6, 3e6, 7, 7, 7]
    panel = read_panel(frame, Reading())
    location, scale = own_scales(panel)
    assert location[:, 0].tolist() == [2.5, 2e6, 7]
    assert scale[:, 0] == pytest.approx([np.std([1, 2, 3, 4]), 1e6, 7])
    values = scaled(panel, location, scale).values[:, 0]
    assert values[5:].tolist() == [-1, 1, -1, 1, 0, 0, 0]


def test_a_wrong_stamp_is_no_gap_to_fill() -> None:
    frame = long(a=("h", 20))
    frame.loc[19, "ds"] = pd.Timestamp("2203-01-02")
    with pytest.raises(ValueError, match="1577813 absent rows beside 20 that are there"):
        read_panel(frame, Reading(gaps="fill"))


def test_numbers_as_stamps() -> None:
    years = pd.DataFrame({"year": ["2001.0", "2002.0"], "y": 1.0})
    assert read_panel(years, Reading()).times.tolist() == [2001, 2002]
    irregular = read_panel(pd.DataFrame({"ds": [0, 1, 3], "y": 1.0}), Reading(irregular=True))
    assert _clock.ahead(irregular.usual, irregular.times[-1:], 2).tolist() == [[4.5, 6.0]]


def test_dates_that_nanoseconds_do_not_reach_are_told() -> None:
    far = [f"{year}-01-01" for year in range(2255, 2270)]
    for stamps in (far, np.array(far, "datetime64[us]")):
        with pytest.raises(ValueError, match=r"row 9 .* a date from 1678 to 2262; got 2263-01-01"):
            read_panel(pd.DataFrame({"ds": stamps, "y": 1.0}), Reading())


def test_a_panel_cut_at_some_rows_is_what_a_table_of_these_rows_gives() -> None:
    frame = long(a=("D", 6), b=("D", 5), c=("D", 1)).assign(x=np.arange(12.0), s=[1] * 6 + [2] * 5 + [3])
    reading = Reading(known=("x",), static=("s",), calendar=True)
    cut = before(read_panel(frame, reading), np.array([4, 2, 0]))
    rows = read_panel(frame.iloc[[0, 1, 2, 3, 6, 7]], reading)
    assert cut.ids == rows.ids == ["a", "b"]
    for name in ("keys", "offsets", "times", "values", "known", "static"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(rows, name))


def test_a_batch_that_is_gathered_is_the_one_that_is_stacked() -> None:
    rng = np.random.default_rng(0)
    series = [
        Series(
            name,
            rng.normal(size=(t, 2)),
            (t - 4, t - 2, t),
            rng.normal(size=(t, 1)),
            rng.normal(size=(t, 3)),
            rng.normal(size=2),
            rng.uniform(1, 2, size=t),
        )
        for name, t in (("a", 20), ("b", 6), ("c", 13), ("d", 30))  # b has no window in its train part
    ]
    for whole in (series, [Series(*one[:3]) for one in series]):
        for part in range(3):
            windows = SeriesWindows(whole, part, 5, 2)
            order = rng.permutation(len(windows)).tolist()
            many, one = collate(windows.__getitems__(order)), collate([windows[i] for i in order])
            for gathered, stacked in zip(many, one, strict=True):
                assert gathered is stacked is None or torch.equal(gathered, stacked)
            at = [(s.name, i) for s in whole for i in origins(s, part, 5, 2)]
            for i in (0, len(windows) - 1):
                name, origin = at[i]
                own = next(s for s in whole if s.name == name)
                np.testing.assert_array_equal(
                    windows[i].past[:, :2], own.values[origin - 5 : origin].astype("f4")
                )
                np.testing.assert_array_equal(windows[i].future, own.values[origin : origin + 2].astype("f4"))
    for outside in ([0, len(windows)], [-1]):
        with pytest.raises(IndexError):
            windows.__getitems__(outside)
