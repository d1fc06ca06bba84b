"""`hippodrome forecast`: a table in, a folder out, whole or not at all; rows in, forecasts out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SMALL = ["--model", "min_gru", "--width", "8", "--depth", "1", "--budget", "2steps"]
QUICK = [*SMALL, "--refit", "1steps"]
FILES = {
    "predictions.csv",
    "metrics.csv",
    "backtest.csv",
    "forecast.png",
    "backtest.png",
    "report.html",
    "run",
}


def test_a_table_becomes_a_folder_with_all_of_it(cli, table_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    words = ["--horizon", 6, "--look-back", 12, "--windows", 2, "--calendar", *QUICK]
    said = cli("forecast", table_file, *words, "--level", "80", "--out", out, "--json")
    assert said.code == 0, said.err
    assert {path.name for path in out.iterdir()} >= FILES
    found = pd.read_csv(out / "predictions.csv")
    assert len(found) == 6
    assert str(found["ds"][0]) == "2024-01-17 16:00:00"
    assert {"load-lo-80", "heat-hi-80"} <= set(found.columns)
    windows = pd.read_csv(out / "backtest.csv")
    assert len(windows) == 2 * 2 * 6
    assert {"min_gru", "SeasonalNaive", "dlinear"} <= set(windows.columns)
    errors = {(r["unique_id"], r["metric"]): r for r in said.json()["metrics"]}
    load = windows[windows["unique_id"] == "load"]
    assert errors["load", "mae"]["SeasonalNaive"] == pytest.approx(
        (load["y"] - load["SeasonalNaive"]).abs().mean()
    )
    assert errors["load", "mae"]["SeasonalNaive"] < 1e-9  # a wave of 24 hours
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") >= 2
    assert (out / "forecast.png").read_bytes()[:4] == b"\x89PNG"
    again = cli("forecast", table_file, *words, "--out", out)
    assert again.code == 2
    assert "there already" in again.err
    # The run in it forecasts on, any level as its bands are conformal.
    rows = cli("forecast", out / "run", table_file, "--level", "60", "--json").json()
    assert {"load", "load-lo-60", "load-hi-60"} <= set(rows[0])


def test_what_is_known_ahead_is_read_from_the_rows_without_targets(cli, tmp_path: Path) -> None:
    rows = 90
    data = pd.DataFrame(
        {"ds": pd.date_range("2024", periods=rows, freq="D"), "y": np.sin(np.arange(rows) / 3)}
    )
    data["sun"] = np.cos(np.arange(rows))
    data.loc[rows - 4 :, "y"] = np.nan
    data.to_csv(tmp_path / "days.csv", index=False)
    words = ["--horizon", 4, "--look-back", 8, "--windows", 1, "--level", "60", *QUICK]
    said = cli(
        "forecast", tmp_path / "days.csv", *words, "--known", "sun", "--targets", "y", "--out", tmp_path / "o"
    )
    assert said.code == 0, said.err
    found = pd.read_csv(tmp_path / "o" / "predictions.csv")
    assert list(found["ds"]) == list(data["ds"][-4:].dt.strftime("%Y-%m-%d"))
    data.dropna().to_csv(tmp_path / "past.csv", index=False)
    said = cli("forecast", tmp_path / "past.csv", *words)
    assert said.code == 2
    assert "Add 4 rows whose targets are empty" in said.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["DATA"], "--horizon 96"),
        (["DATA", "--horizon", 300], "take 1500 rows"),
        (["DATA", "--horizon", 300, "--windows", 1], "a horizon of 300 is learned from"),
        (["DATA", "--horizon", 6, "--stream"], "goes with a run"),
        (["DATA", "--horizon", 6, "--level", "80,100"], "between 0 and 100"),
        (["DATA", "--horizon", 6, "--known", "wind"], "--targets"),
        (["DATA", "--horizon", 6, "--targets", "wind"], "'wind'"),
        (["BAD", "--horizon", 6], "'abc'"),
        (["none.csv", "--horizon", 6], "none.csv"),
        (["RUN"], "name the table"),
        (["RUN", "DATA", "--horizon", 6], "--horizon is for training"),
        (["RUN", "DATA", "--every", 2], "goes with --stream"),
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
