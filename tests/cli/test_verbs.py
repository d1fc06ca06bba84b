"""Every verb does its job and, where it reports, prints one JSON value on request."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from hippodrome.cli._app import app, verbs


def test_every_verb_has_help_of_its_own(cli) -> None:
    for verb in verbs():
        answer = cli(verb, "--help")
        assert answer.code == 0
        assert f"hippodrome {verb}" in answer.out


def test_help_tells_the_defaults_that_are_not_in_a_signature(cli) -> None:
    known = get_command(app)
    for verb in verbs():
        told = [
            text
            for p in known.commands[verb].params
            if "[default: " in (text := getattr(p, "help", "") or "")
        ]
        assert cli(verb, "--help").out.count("[default:") >= len(told), verb
    shown = "".join(cli("impute", "--help").out.replace("│", " ").split())
    assert "whichmustbenew.[default:NAME-filled]" in shown


def test_version(cli) -> None:
    answer = cli("--version")
    assert answer.code == 0
    assert answer.out.startswith("hippodrome ")


def test_list_names_mixers_with_their_papers(cli) -> None:
    found = {row["kind"]: row for row in cli("list", "mixers", "--json").json()["mixers"]}
    assert {
        "mamba",
        "mamba2",
        "s4d",
        "lru",
        "attention",
        "gru",
        "gla",
        "min_gru",
        "rg_lru",
        "long_conv",
    } <= set(found)
    assert "2312.00752" in found["mamba"]["source"]
    assert all(row["what"] and row["source"] for row in found.values())


def test_list_names_recipes_with_their_families(cli) -> None:
    found = {row["name"]: row for row in cli("list", "recipes", "--json").json()["recipes"]}
    assert "mamba_130m" in found
    assert all(row["title"] and row["family"] for row in found.values())


def test_cite_and_inspect_know_recipes(cli) -> None:
    assert "2312.00752" in cli("cite", "mamba_130m").out
    found = cli("inspect", "s4d_lin", "--length", 8, "--width", 16, "--json").json()
    assert found["parameters"] > 0


def test_looking_up_mixers_and_recipes_needs_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from hippodrome.cli import app\n"
        "for words in (['list', 'mixers'], ['list', 'recipes'], ['cite', 'mamba', 'mamba_130m']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0, words\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_list_names_sources(cli) -> None:
    names = [row["name"] for row in cli("list", "sources", "--json").json()["sources"]]
    assert {"python-docs", "listops", "chaotic", "seasonal"} <= set(names)


def test_list_shows_everything_by_default(cli) -> None:
    assert set(cli("list", "--json").json()) == {"mixers", "recipes", "sources", "layouts"}
    assert "mamba2" in cli("list").out


def test_cite_makes_bibtex_of_a_mixer(cli) -> None:
    text = cli("cite", "mamba").out
    assert text.startswith("@")
    assert "2312.00752" in text
    assert text.count("{") == text.count("}")


def test_train_leaves_a_run_folder(language_run: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json", "result.json"} <= {
        path.name for path in language_run.iterdir()
    }
    command = json.loads((language_run / "config.json").read_text())["command"]
    assert command.startswith("hippodrome train ")


def test_a_trained_run_is_not_overwritten_by_accident(cli, text_file: Path, language_run: Path) -> None:
    answer = cli("train", text_file, "--out", language_run, "--model", "min_gru")
    assert answer.code == 2
    assert "holds a run" in answer.err


def test_evaluate_on_the_runs_own_data_and_on_other(cli, text_file, language_run) -> None:
    own = cli("evaluate", language_run, "--json").json()
    other = cli("evaluate", language_run, text_file, "--json").json()
    assert own["metrics"] == other["metrics"]
    assert 0 < own["metrics"]["nats"] < 10
    assert cli("evaluate", language_run, "--part", "valid", "--json").json()["part"] == "valid"


@pytest.mark.parametrize("run", ["forecast_run", "classify_run"])
def test_evaluate_other_kinds(cli, run: str, request: pytest.FixtureRequest) -> None:
    metrics = cli("evaluate", request.getfixturevalue(run), "--json").json()["metrics"]
    assert ({"mse", "mae"} if run == "forecast_run" else {"accuracy", "nats"}) <= set(metrics)


def test_generate_goes_on_from_a_prompt(cli, language_run: Path) -> None:
    words = ("generate", language_run, "--tokens", 12, "--seed", 3)
    said = cli(*words, "--prompt", "The ")
    assert said.code == 0
    assert said.out.startswith("The ")
    assert cli(*words, stdin="The ").out == said.out
    assert cli(*words, "--prompt", "The ", "--json").json()["prompt"] == "The "


@pytest.mark.parametrize("what", ["mamba", "lru", "attention", "run"])
def test_inspect_shows_cost_and_writes_charts(cli, what: str, language_run: Path, tmp_path: Path) -> None:
    target = language_run if what == "run" else what
    answer = cli("inspect", target, "--length", 16, "--out", tmp_path / "page.html", "--json")
    assert answer.code == 0, answer.err
    found = answer.json()
    assert found["parameters"] > 0
    assert found["state_bytes"] > 0
    assert found["memory_tokens"] >= 1
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") >= 2
    assert "http" not in page.replace("http://www.w3.org", "")


def test_inspect_hands_options_to_the_mixer(cli) -> None:
    small = cli("inspect", "mamba", "--length", 8, "--json").json()
    large = cli("inspect", "mamba", "--length", 8, "-s", "d_state=64", "--json").json()
    assert large["state_bytes"] > 2 * small["state_bytes"]


def test_doctor_tells_backends_and_why_one_is_refused(cli) -> None:
    found = cli("doctor", "--json").json()
    scan = found["operators"]["linear_scan"]
    assert [facts["chosen"] for facts in scan.values()].count(True) == 1
    assert scan["reference"]["refusal"] is None
    assert found["versions"]["torch"].startswith("2.13")


@pytest.mark.slow
def test_doctor_checks_every_backend_against_its_definition(cli) -> None:
    answer = cli("doctor", "--check", "--json")
    assert answer.code == 0
    errors = [f["error"] for op in answer.json()["operators"].values() for f in op.values()]
    assert all(float(e) < 1e-4 for e in errors if e)


def test_bench_times_what_is_asked(cli) -> None:
    answer = cli("bench", "linear_scan", "min_gru", "--tiny", "--settled", "--seconds", "0", "--json", "-")
    assert answer.code == 0, answer.err
    timings = answer.json()["timings"]
    assert {t["row"] for t in timings} == {"operator linear_scan", "mixer min_gru"}
    assert {t["phase"] for t in timings} == {"forward", "forward + backward", "one step"}
    assert all(t["median"] > 0 for t in timings)


def test_race_plan_trains_nothing(cli, text_file: Path, tmp_path: Path) -> None:
    words = [
        "race",
        text_file,
        "--models",
        "min_gru",
        "--parameters",
        4000,
        "--depth",
        1,
        "--out",
        tmp_path / "r",
    ]
    answer = cli(*words, "--plan", "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "training runs" in answer.out
    assert not (tmp_path / "r").exists()


def test_race_plans_with_pretraining_and_refuses_what_cannot_be(cli, text_file, tmp_path: Path) -> None:
    words = [
        "race",
        "listops",
        "-s",
        "data.count=120",
        "-s",
        "data.length=24",
        "--parameters",
        3000,
        "--depth",
    ]
    words += [1, "--models", "s4d", "--budget", "20steps", "--device", "cpu", "--plan", "--json"]
    words += ["-s", "options.s4d.d_state=6", "-s", "baselines=[]", "--pretrain"]
    plan = cli(*words, "masked", "--pretrain-budget", "5steps", "--mask-rate", 0.2).json()
    assert [entry["name"] for entry in plan["entries"]] == ["s4d", "s4d pretrained"]
    assert plan["entries"][1]["spec"]["backbone"]["blocks"][0]["mixer"]["d_state"] == 6
    assert plan["outlook"]["runs"] == 3
    for more, sentence in (
        (["hidden"], "masked or causal; got 'hidden'"),
        (["masked", "--mask-rate", 1.0], "above 0 and below 1"),
        (["causal", "-s", "mask_span=3"], "hides nothing"),
    ):
        answer = cli(*words, *more)
        assert answer.code != 0
        assert sentence in answer.err
    answer = cli("race", text_file, "--plan", "--pretrain", "masked")
    assert answer.code != 0
    assert "a language task. Leave the pretraining out" in answer.err


@pytest.mark.slow
def test_race_crowns_a_winner_that_can_be_used(cli, text_file: Path, tmp_path: Path) -> None:
    config = tmp_path / "race.yaml"
    config.write_text("budget: 3steps\nlengths: [16, 32]\nvalid_batches: 1\ndata:\n  length: 32\n")
    words = ["race", text_file, "--models", "min_gru", "--parameters", 4000, "--depth", 1, "--batch-size", 4]
    answer = cli(*words, "-c", config, "-s", "validations=2", "--out", tmp_path / "race", "--json")
    assert answer.code == 0, answer.err
    result = answer.json()
    assert {s["name"] for s in result["standings"]} == {"min_gru", "gru", "attention"}
    assert result["budget"] == "3 steps"
    assert result["command"].startswith("hippodrome race ")
    assert (tmp_path / "race" / "report.html").is_file()
    said = cli("generate", tmp_path / "race" / "winner", "--prompt", "The ", "--tokens", 5)
    assert said.code == 0, said.err


def test_forecast_goes_on_after_the_end_of_a_table(cli, forecast_run, table_file, tmp_path: Path) -> None:
    rows = cli("forecast", forecast_run, table_file, "--json").json()
    assert len(rows) == 24
    assert str(rows[0]["ds"]).startswith("2024-01-17 16:00")  # 400 hours from the first of January
    assert {"load", "heat", "load-lo-80", "load-hi-80"} <= set(rows[0])
    assert all(row["load-lo-80"] <= row["load-hi-80"] for row in rows)
    said = cli("forecast", forecast_run, table_file).out.splitlines()
    assert cli("forecast", forecast_run, table_file, "--out", tmp_path / "f.csv").code == 0
    assert (tmp_path / "f.csv").read_text().splitlines() == said
    assert len(said) == 25


def test_classify_tells_classes_and_how_many_are_right(cli, classify_run, labelled_file, tmp_path) -> None:
    test = labelled_file.with_name("Slopes_TEST.ts")
    found = cli("classify", classify_run, test, "--json").json()
    assert found["classes"] == ["down", "up"]
    assert len(found["sequences"]) == 8
    assert {row["class"] for row in found["sequences"]} <= {"down", "up"}
    metrics = cli("evaluate", classify_run, "--json").json()["metrics"]
    assert found["accuracy"] == pytest.approx(metrics["accuracy"])
    cli("classify", classify_run, test, "--out", tmp_path / "c.csv")
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert lines[0] == "sequence,class,p(down),p(up)"
    assert sum(map(float, lines[1].split(",")[2:])) == pytest.approx(1)
