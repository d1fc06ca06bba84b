"""`hippodrome forecast`: a table in, a folder out, whole or not at all; rows in, forecasts out."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

SMALL = ["--model", "min_gru", "--width", "8", "--depth", "1", "--budget", "2steps"]
FILES = {
    "predictions.csv",
    "metrics.csv",
    "backtest.csv",
    "forecast.png",
    "backtest.png",
    "report.html",
    "run",
}


@pytest.fixture(scope="module")
def known_table(table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two series with a third known six hours ahead."""
    data = pd.read_csv(table_file)
    data["sun"] = np.cos(np.arange(len(data)))
    data.loc[len(data) - 6 :, ["load", "heat"]] = np.nan
    path = tmp_path_factory.mktemp("known") / "power.csv"
    data.to_csv(path, index=False)
    return path


def test_a_table_becomes_a_folder_with_all_of_it(cli, known_table: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    words = ["--horizon", 6, "--look-back", 12, "--windows", 2, "--known", "sun", "--targets", "load,heat"]
    words += [*SMALL, "--refit", "1steps", "--level", "80"]
    said = cli("forecast", known_table, *words, "--out", out, "--json")
    assert said.code == 0, said.err
    assert {path.name for path in out.iterdir()} >= FILES
    found = pd.read_csv(out / "predictions.csv")
    ahead = pd.read_csv(known_table)["date"][-6:]
    assert list(pd.to_datetime(found["ds"])) == list(pd.to_datetime(ahead))
    assert {"load-lo-80", "heat-hi-80"} <= set(found.columns)
    windows = pd.read_csv(out / "backtest.csv")
    assert len(windows) == 2 * 2 * 6
    assert {"min_gru", "SeasonalNaive", "dlinear"} <= set(windows.columns)
    errors = {(r["unique_id"], r["metric"]): r for r in said.json()["metrics"]}
    load = windows[windows["unique_id"] == "load"]
    assert errors["load", "mae"]["SeasonalNaive"] < 1e-9  # a wave of 24 hours
    assert errors["load", "mae"]["min_gru"] == pytest.approx((load["y"] - load["min_gru"]).abs().mean())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") >= 2
    assert (out / "forecast.png").read_bytes()[:4] == b"\x89PNG"
    again = cli("forecast", known_table, *words, "--out", out)
    assert again.code == 2
    assert "there already" in again.err
    # The run in it forecasts on, any level as its bands are conformal.
    rows = cli("forecast", out / "run", known_table, "--level", "60", "--json").json()
    assert {"load", "load-lo-60", "load-hi-60"} <= set(rows[0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["DATA"], "--horizon 96"),
        (["DATA", "--horizon", 300], "take 1500 rows"),
        (["DATA", "--horizon", 300, "--windows", 1], "a horizon of 300 is learned from 301"),
        (["DATA", "--horizon", 6, "--stream"], "goes with a run"),
        (["DATA", "--horizon", 6, "--level", "80,100"], "between 0 and 100"),
        (["DATA", "--horizon", 6, "--look-back", 1_000_000], "the longest series has, 400 rows"),
        (["DATA", "--horizon", 6, "--level", ""], "numbers with commas"),
        (["DATA", "--horizon", 6, "--refit", "soon"], "a budget is a number with a unit"),
        (["DATA", "--horizon", 6, "--out", "bad.csv/out"], "is no folder to write to"),
        (["DATA", "--horizon", 6, "--known", "wind"], "--targets"),
        (
            ["DATA", "--horizon", 6, "--known", "heat", "--targets", "load"],
            "Add 6 rows whose targets are empty",
        ),
        (["DATA", "--horizon", 6, "--targets", "wind"], "'wind'"),
        (["BAD", "--horizon", 6], "'abc'"),
        (["none.csv", "--horizon", 6], "none.csv"),
        (["RUN"], "name the table"),
        (["RUN", "DATA", "--horizon", 6], "--horizon is for training"),
        (["RUN", "DATA", "--every", 2], "goes with --stream"),
        (["RUN", "DATA", "--out", "nowhere/x.csv"], "a folder that is there"),
        (["RUN", "-"], "- --stream"),
        (["RUN", "DATA", "--level", "95"], "a band of 95 %"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_and_nothing_is_written(
    cli, words, sentence, table_file, forecast_run, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.csv"
    bad.write_text("ds,y\n2024-01-01,1\n2024-01-02,abc\n2024-01-03,2\n", encoding="utf-8")
    names = {"DATA": table_file, "RUN": forecast_run, "BAD": bad}
    small = SMALL if words[0] != "RUN" else []
    said = cli("forecast", *(names.get(word, word) for word in words), *small)
    assert said.code == 2
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_rows_from_stdin_are_forecast_one_by_one(cli, forecast_run: Path, table_file: Path) -> None:
    lines = table_file.read_text().splitlines()
    text = "\n".join(lines[:56]) + "\n"
    said = cli("forecast", forecast_run, "-", "--stream", "--every", 3, stdin=text)
    assert said.code == 0, said.err
    rows = [line.split(",") for line in said.out.splitlines()]
    assert rows[0][:3] == ["cutoff", "ds", "load"]
    assert len(rows) == 1 + 2 * 24  # 55 rows, the first 48 of them the history
    assert rows[1][0] == "2024-01-03 02:00:00"
    assert rows[1][1] == "2024-01-03 03:00:00"
    broken = text + "2024-01-03 07:00,1\n"
    said = cli("forecast", forecast_run, "-", "--stream", "--json", stdin=broken)
    assert said.code == 2
    assert "got 2 in row 56" in said.err


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [
        ("", "holds no rows"),
        ("date,load,load\n", "got 'load' twice"),
        ("date,load,heat\n" + "x" * 200_000 + ",1,2\n", "a line that is none (field larger"),
        (b"\xff\xfe\n", "text in UTF-8"),
    ],
)
def test_a_stream_that_is_none_is_refused_in_a_line(
    cli, forecast_run: Path, stdin: str, sentence: str
) -> None:
    said = cli("forecast", forecast_run, "-", "--stream", stdin=stdin)
    assert (said.code, said.out, len(said.err.strip().splitlines())) == (2, "", 1)
    assert sentence in said.err


def test_a_stream_that_was_closed_is_refused(
    cli, forecast_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hippodrome.cli._opened.sys", SimpleNamespace(stdin=None))
    said = cli("forecast", forecast_run, "-", "--stream")
    assert (said.code, said.err) == (2, "Error: there is no standard input to read from: it was closed\n")
