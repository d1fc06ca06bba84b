"""`hippodrome impute`: what it writes, what it says, and the sentences for tables it cannot fill."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hippodrome.estimators import Imputer

SMALL = ["--model", "bi-min_gru", "--width", "8", "--depth", "1", "--budget", "2steps", "--window", "24"]
SMALL += ["--device", "cpu"]


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("holed") / "power.csv"
    t = np.arange(100)
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=100, freq="h")})
    frame["load"], frame["heat"] = np.sin(t / 3), 5 + np.cos(t / 3)
    frame.loc[20:25, "load"] = frame.loc[70, "heat"] = np.nan
    frame.to_csv(path, index=False)
    return path


def test_writes_a_folder_and_goes_on_from_the_model_in_it(cli, holed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = cli("impute", holed, "--out", out, "--json", *SMALL)
    assert answer.code == 0, answer.err
    assert answer.json()["filled"] == 7
    score = json.loads((out / "score.json").read_text())
    assert list(score) == ["model", "linear interpolation", "last value carried", "mean"]
    assert answer.json()["score"] == score
    given, filled = pd.read_csv(holed), pd.read_csv(out / "filled.csv")
    assert not filled.isna().any().any()
    known = given.notna()
    assert ((filled == given) | ~known).all().all()
    holes = pd.read_csv(out / "holes.csv")
    assert list(holes["row"]) == [21, 22, 23, 24, 25, 26, 71]
    assert (holes["value-lo-80"] <= holes["value-hi-80"]).all()
    assert (out / "filled.png").read_bytes().startswith(b"\x89PNG")
    again = cli("impute", holed, "--run", out / "run", "--out", tmp_path / "again", "--json")
    assert again.code == 0, again.err
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "again" / "filled.csv"), filled)
    taken = cli("impute", holed, "--out", out, *SMALL)
    assert taken.code == 2
    assert "is there already" in taken.err
    for words in (["--model", "bi-s4d"], ["--budget", "9s"], ["--window", 12]):
        answer = cli("impute", holed, "--run", out / "run", "--out", tmp_path / "no", *words)
        assert (answer.code, f"{words[0]} is for training" in answer.err) == (2, True)
    assert not (tmp_path / "no").exists()


def test_leaves_nothing_half_written_when_it_is_stopped(
    cli, holed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Imputer, place: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Imputer, "save", stopped)
    answer = cli("impute", holed, "--out", tmp_path / "out", *SMALL)
    assert (answer.code, answer.err.strip()) == (130, "Stopped.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["a,b", "2024-01-01,1", "2024-01-02,2"], "every cell of b is there"),
        (["date,b", "2024-01-01,1", "2024-01-02,", "2024-01-03,3"], "'b' has 2. Give more rows"),
        (["date,b", "2024-01-01,1", "2024-01-02,x"], "row 2"),
        (["date,b", *(f"2024-01-{d:02d},1" for d in (1, 2, 3, 5)), "2024-01-06,"], "one step throughout"),
        (["date,b", "2024-01-02,1", "2024-01-01,"], "stamps that increase"),
        (["b,c", *(f"{i},1" for i in range(20)), ",1"], "no value is left to train on"),
    ],
)
def test_refuses_in_one_line_and_writes_nothing(cli, tmp_path: Path, rows: list[str], words: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(rows) + "\n")
    answer = cli("impute", path, "--out", tmp_path / "out", *SMALL)
    assert answer.code == 2
    assert words in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_refuses_what_is_not_there_or_no_imputer(cli, holed: Path, forecast_run: Path) -> None:
    answer = cli("impute", "nowhere.csv", *SMALL)
    assert (answer.code, "there is no table" in answer.err) == (2, True)
    answer = cli("impute", holed, "--out", holed / "out", *SMALL)
    assert (answer.code, "is no folder to write to" in answer.err) == (2, True)
    answer = cli("impute", holed, "--run", forecast_run)
    assert (answer.code, "fills in no table" in answer.err) == (2, True)


def test_a_run_of_the_kind_is_trained_and_measured_by_the_other_verbs(
    cli, holed: Path, tmp_path: Path
) -> None:
    words = ["--kind", "imputation", "-s", "data.length=24", "-s", "data.hide=points"]
    answer = cli("train", holed, "--out", tmp_path / "run", "--json", *words, *SMALL[:8], *SMALL[10:])
    assert answer.code == 0, answer.err
    measured = cli("evaluate", tmp_path / "run", "--json")
    assert measured.code == 0, measured.err
    assert {"mse", "mae", "coverage"} <= set(measured.json()["metrics"])
    filled = cli("impute", holed, "--run", tmp_path / "run", "--out", tmp_path / "out", "--json")
    assert filled.code == 0, filled.err
    assert filled.json()["filled"] == 7
