"""`hippodrome inspect`: facts of linear systems, one page, PNG files, and bad input as one line."""

from pathlib import Path

import pytest


def refused(answer, *words: str) -> None:
    """One line on standard error, exit code 2."""
    assert answer.code == 2
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert all(word in lines[0] for word in words)


def test_facts_of_a_linear_mixer_hold_its_hankel_values(cli) -> None:
    found = cli("inspect", "s4d", "--length", 8, "--width", 8, "-s", "d_state=8", "--json").json()
    system = found["systems"]["s4d"]
    assert system["linear"]
    assert system["one_system_per_channel"]
    assert system["states"] == 8
    assert len(system["hankel_values"]) == 8
    assert system["hankel_values"] == sorted(system["hankel_values"], reverse=True)
    assert 1 <= system["effective_order"]["least"] <= system["effective_order"]["most"] <= 8
    assert 0 < system["largest_modulus"] < 1
    told = found["against_hippo"]
    assert told["s4d_legs_error"] == pytest.approx(12.8, rel=1e-2)
    assert told["ptd_error"] <= told["bound"]


def test_what_is_not_linear_says_why(cli) -> None:
    answer = cli("inspect", "mamba", "--length", 8, "--width", 8, "--json").json()
    assert not answer["systems"]["mamba"]["linear"]
    assert "Mamba" in answer["systems"]["mamba"]["why_not"]
    assert "against_hippo" not in answer
    large = cli("inspect", "long_conv", "--length", 8, "--width", 8, "--json").json()
    assert "more than the 1024 that are probed" in large["systems"]["long_conv"]["why_not"]


def test_every_chart_is_in_the_page_and_in_the_folder(cli, tmp_path: Path) -> None:
    page, folder = tmp_path / "page.html", tmp_path / "new" / "charts"
    words = ["--length", 16, "--width", 8, "-s", "d_state=8", "--out", page, "--png", folder]
    answer = cli("inspect", "s4d", *words)
    assert answer.code == 0, answer.err
    assert answer.out.count("charts: ") == 2
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "influence.png",
        "s4d-impulse.png",
        "s4d-bode.png",
        "s4d-poles.png",
        "s4d-hankel.png",
        "s4d-truncation.png",
        "s4d-reach.png",
        "hippo-fidelity.png",
        "hippo-noise.png",
    }
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in folder.iterdir())
    text = page.read_text()
    assert text.count("<svg") == len(names)
    assert "http" not in text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["hippo_legs", "lmu"])
def test_a_hippo_memory_shows_the_past_it_holds(cli, kind: str, tmp_path: Path) -> None:
    answer = cli("inspect", kind, "--length", 32, "--width", 8, "-s", "d_state=8", "--png", tmp_path)
    assert answer.code == 0, answer.err
    assert (tmp_path / f"{kind}-past.png").stat().st_size > 1000


def test_places_that_cannot_be_are_refused_before_anything_is_drawn(cli, tmp_path: Path) -> None:
    refused(cli("inspect", "s4d", "--out", tmp_path / "chart.png"), "HTML", "--png")
    refused(cli("inspect", "s4d", "--out", tmp_path), "HTML")
    (tmp_path / "file").write_text("")
    refused(cli("inspect", "s4d", "--png", tmp_path / "file"), "folder")
    refused(cli("inspect", tmp_path / "file"), "is not a run folder: it is a file")
    refused(cli("inspect", "lru", "--out", tmp_path / "nowhere" / "page.html"), "nowhere", "Make it")
    refused(cli("inspect", "s4d", "-s", "d_state=7"), "even")
    refused(cli("inspect", "s4d", "-s", "d_state=many"), "d_state")


def test_what_reads_both_ways_has_no_state_but_a_picture(cli, tmp_path: Path) -> None:
    words = ["--width", 8, "--length", 16, "--png", tmp_path / "two", "--json"]
    found = cli("inspect", "s4_lra_image", *words).json()
    assert found["state_bytes"] is found["bytes_per_token"] is found["memory_tokens"] is None
    assert "step" in found["systems"]["bidirectional"]["why_not"]
    assert found["systems"]["s4"]["linear"]
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert {"bidirectional-impulse.png", "s4-bode.png", "s4-poles.png"} <= names
    assert "bidirectional-poles.png" not in names


def test_a_mixer_over_a_grid_is_looked_at_over_one_grid(cli, tmp_path: Path) -> None:
    answer = cli("inspect", "s4nd_cifar", "--width", 8, "--png", tmp_path / "grid")
    assert answer.code == 0, answer.err
    assert "decoding" not in answer.out
    assert [path.name for path in (tmp_path / "grid").iterdir()] == ["s4nd-impulse.png"]
    refused(cli("inspect", "s4nd_cifar", "--width", 8, "--length", 64), "1024", "64")


def test_layers_of_two_directions_and_grids_are_looked_at_by_name(cli) -> None:
    facts = cli("inspect", "bi-s4d", "--width", 8, "-s", "d_state=4", "--json").json()
    assert facts["state_bytes"] is None
    assert cli("inspect", "s4nd", "--width", 8, "-s", "sizes=[4,4]").code == 0
    for kind in ("s4nd", "conv_s5", "bi-conv_lstm"):
        assert cli("inspect", kind, "--width", 8, "--length", 12).code == 0
    kinds = [row["kind"] for row in cli("list", "mixers", "--json").json()["mixers"]]
    assert {"s4nd", "bidirectional", "s4d"} <= set(kinds)
    assert "2210.06583" in cli("cite", "s4nd").out


def test_a_pattern_is_looked_at_as_a_whole(cli) -> None:
    small = ("--length", 8, "--width", 8, "-s", "mamba2.d_state=4", "-s", "mamba2.head_dim=4")
    found = cli("inspect", "mamba2+mlp", *small, "--json").json()
    alone = cli("inspect", "mamba2", *small[:4], "-s", "d_state=4", "-s", "head_dim=4", "--json").json()
    assert found["parameters"] > alone["parameters"]
    assert set(found["systems"]) == {"mamba2", "mlp"}
    refused(cli("inspect", "mamba2+mpl"), "mpl", "did you mean 'mlp'")
    refused(cli("inspect", "mamba2+mlp", "-s", "gru.taps=2"), "gru", "not in the pattern")


def test_layers_of_a_run_are_looked_at_on_its_own_data(cli, text_file, tmp_path) -> None:
    run = tmp_path / "run"
    words = ["--model", "bimamba+retention", "--kind", "masked_language", "--budget", "1steps"]
    sizes = ["--width", 8, "--depth", 2, "-s", "data.length=16", "--batch-size", 2, "--device", "cpu"]
    assert cli("train", text_file, *words, *sizes, "--out", run).code == 0
    layers = cli("inspect", run, "--on", 1, "--length", 8, "--json").json()["layers"]
    assert [name.split("blocks.")[1] for name in layers] == [
        "0.mixer.mamba_fwd",
        "0.mixer.mamba_rev",
        "1.mixer",
    ]
    assert all(told["reach"] >= 0 and told["memory"]["longest"] > 0 for told in layers.values())
    assert [told["dynamics"]["conjecture"] for told in layers.values() if "dynamics" in told] == [True, True]
