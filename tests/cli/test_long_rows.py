"""A model trained on short rows is asked about long ones, through the state."""

import pytest


def test_evaluate_in_chunks(cli, tmp_path) -> None:
    run = tmp_path / "run"
    words = ["--model", "min_gru", "--width", "8", "--depth", "1", "--budget", "2steps", "--device", "cpu"]
    made = cli(
        "train", "induction", "--out", run, *words, "-s", "data.length=16", "-s", "data.count=40", "--json"
    )
    assert made.code == 0, made.err
    long = ["-s", "data.length=300", "-s", "data.count=60", "--json"]
    whole = cli("evaluate", run, *long).json()["metrics"]
    parts = cli("evaluate", run, *long, "--chunk", "64").json()["metrics"]
    assert parts == pytest.approx(whole, rel=1e-4)
    refused = cli("evaluate", run, "-s", "data.vocabulary=40")
    assert refused.code == 2
    assert "induction has 41 tokens; the model knows 21" in refused.err


def test_a_table_of_places_by_lengths(cli, tmp_path) -> None:
    run = tmp_path / "run"
    words = ["--model", "min_gru", "--width", "8", "--depth", "1", "--budget", "2steps", "--device", "cpu"]
    assert (
        cli(
            "train", "passkey", "--out", run, *words, "-s", "data.length=300", "-s", "data.count=40", "--json"
        ).code
        == 0
    )
    for place in (0.0, 1.0):
        asked = ["-s", f"data.place={place}", "-s", "data.length=600", "-s", "data.count=20"]
        found = cli("evaluate", run, *asked, "--chunk", "256", "--json").json()["metrics"]
        assert 0 <= found["exact"] <= 1
        assert found["accuracy"] >= found["exact"]
