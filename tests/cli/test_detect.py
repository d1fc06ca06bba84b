"""`hippodrome detect`: scores, flags and metrics of a table, and the sentences for tables it cannot watch."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SMALL = ["--model", "min_gru", "--width", "8", "--depth", "1", "--budget", "2steps", "--window", "16"]
SMALL += ["--device", "cpu"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watched") / "pump.csv"
    t = np.arange(160)
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=160, freq="h"), "flow": np.sin(t / 3)})
    frame["wrong"] = 0
    frame.loc[[60, 110], "flow"] += 5.0
    frame.loc[[60, 110], "wrong"] = 1
    frame.to_csv(path, index=False)
    return path


def test_writes_a_folder_and_goes_on_from_the_model_in_it(cli, watched: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--labels", "wrong", "--contamination", "0.05"]
    answer = cli("detect", watched, "--out", out, "--json", *words, *SMALL)
    assert answer.code == 0, answer.err
    told = answer.json()
    scores = pd.read_csv(out / "scores.csv")
    assert list(scores.columns) == ["date", "flow", "score", "anomaly", "wrong"]
    assert scores["score"].isna().sum() == 16
    assert scores["anomaly"].sum() == told["flagged"]
    assert told["flagged"] == pytest.approx(0.05 * 144, abs=1)
    assert (scores["score"] > told["threshold"]).tolist() == scores["anomaly"].tolist()
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"auroc", "auprc", "best f1", "share"} == set(metrics)
    assert metrics["share"] == pytest.approx(2 / 144)
    assert (out / "detected.png").read_bytes().startswith(b"\x89PNG")
    short = tmp_path / "short.csv"
    pd.read_csv(watched)[:9].to_csv(short, index=False)
    none = cli("detect", short, "--run", out / "run", "--out", tmp_path / "none", "--column", "flow")
    assert (none.code, "no step has a score" in none.err, (tmp_path / "none").exists()) == (2, True, False)
    again = cli("detect", watched, "--run", out / "run", "--out", tmp_path / "again", "--json", *words[:2])
    assert again.code == 0, again.err
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "again" / "scores.csv"), scores)


def test_learns_from_another_table_where_one_is_named(cli, watched: Path, tmp_path: Path) -> None:
    usual = tmp_path / "usual.csv"
    t = np.arange(120)
    pd.DataFrame({"date": t, "flow": np.sin(t / 3)}).to_csv(usual, index=False)
    words = ["--method", "reconstruction", "--model", "bi-min_gru", "--labels", "wrong", "--block", "2"]
    out = tmp_path / "out"
    answer = cli("detect", watched, "--learn-from", usual, "--out", out, "--json", *SMALL, *words)
    assert answer.code == 0, answer.err
    assert answer.json()["auroc"] > 0.9
    assert not (out / "scores.csv").read_text().count(",,"), "reconstruction scores every step"


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({}, ["--labels", "bad"], "a column 'bad'"),
        ({"wrong": 2}, ["--labels", "wrong"], "expected 0 or 1; got 2"),
        ({"flow": "x"}, ["--labels", "wrong"], "row 4 (data rows from 1"),
        ({}, ["--contamination", "0.9"], "inside (0, 0.5)"),
        ({}, ["--block", "4"], "--block says nothing to the method 'forecast'"),
        ({}, ["--run", "RUN", "--learn-from", "RUN"], "--learn-from is for training"),
        ({}, ["--window", "200", "--labels", "wrong"], "fits nowhere into the train part"),
    ],
)
def test_refuses_in_one_line_and_writes_nothing(
    cli, watched: Path, tmp_path: Path, change: dict, words: list[str], said: str
) -> None:
    frame = pd.read_csv(watched, dtype=object)
    for name, value in change.items():
        frame.loc[3, name] = value
    path = tmp_path / "pump.csv"
    frame.to_csv(path, index=False)
    answer = cli("detect", path, "--out", tmp_path / "out", *([] if "--run" in words else SMALL), *words)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_refuses_a_run_that_is_no_detector(cli, watched: Path, forecast_run: Path) -> None:
    answer = cli("detect", watched, "--run", forecast_run)
    assert (answer.code, "is no detector" in answer.err) == (2, True)
