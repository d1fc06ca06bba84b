"""Whatever a person gets wrong ends in one sentence on standard error and exit code 2, with no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from hippodrome.cli._settings import Settings, read


def refused(answer, *words: str) -> None:
    """Exit code 2, one line, the words in it."""
    assert answer.code == 2, answer.out
    assert "Traceback" not in answer.err
    assert len(answer.err.strip().splitlines()) == 1, answer.err
    for word in words:
        assert word in answer.err


def test_missing_file(cli) -> None:
    refused(cli("race", "no-such-file.csv"), "no-such-file.csv")


def test_near_miss_of_a_source(cli) -> None:
    refused(cli("race", "python-doc"), "python-docs")


def test_bad_cell_names_row_and_column(cli, table_file: Path, tmp_path: Path) -> None:
    lines = table_file.read_text().splitlines()
    lines[7] = lines[7].rsplit(",", 1)[0] + ",n/a-ish"
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join(lines) + "\n")
    refused(cli("race", bad), "bad.csv", "row 7", "'heat'", "n/a-ish")


def test_unknown_model(cli, text_file: Path) -> None:
    refused(cli("race", text_file, "--models", "mambaa"), "mambaa", "did you mean", "mamba")
    refused(cli("train", text_file, "--model", "s4dd"), "s4dd", "s4d")


def test_what_cannot_be_built_leaves_no_folder(cli, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(cli("train", text_file, "--model", "bi-min_gru", "--out", out), "causal")
    refused(
        cli("train", text_file, "--model", "s4d", "-s", "model.options.s4d.d_state=7", "--out", out), "even"
    )
    assert not out.exists()


def test_a_recipe_does_not_race(cli, text_file: Path) -> None:
    refused(cli("race", text_file, "--models", "s4d,mamba_130m"), "recipe 'mamba_130m'", "'mamba'", "train")
    refused(cli("race", text_file, "--models", "mamba2attn_2_7b"), "mamba2x")


def test_kinds_that_do_not_fit_a_source(cli, text_file: Path) -> None:
    refused(cli("race", text_file, "--kind", "masked_langage"), "did you mean 'masked_language'")
    for kind in ("vision", "video", "forecasting"):
        refused(cli("race", text_file, "--kind", kind), "read as text", "encoder or language", f"'{kind}'")


def test_words_before_mixers(cli, text_file: Path) -> None:
    refused(cli("race", text_file, "--models", "cross-hydra"), "one way", "cross-hydra")
    refused(cli("race", text_file, "--models", "scan2d"), "cross-mamba")


def test_near_misses_of_other_names(cli, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(cli("train", text_file, "-s", "training.weight_decy=1", "--out", out), "'weight_decay'")
    refused(cli("inspect", "mamab"), "Did you mean 'mamba'")
    refused(cli("inspect", tmp_path / "none"), "hippodrome list")


def test_a_backbone_is_named_with_its_stacks(cli, text_file: Path) -> None:
    for pattern in ("hiss", "bi-hiss", "s4d+sashimi"):
        refused(cli("train", text_file, "--model", pattern), "is a backbone", ":s4d", pattern)
    for pattern in ("hiss:", "hiss::s4d"):
        refused(cli("train", text_file, "--model", pattern), "behind each colon", f"'{pattern}'")
    refused(cli("race", text_file, "--models", "hiss:s4d:s4d:s4d"), "two levels; got 3")


def test_faults_of_a_pretraining_are_told_in_our_words(cli, text_file: Path) -> None:
    for words, told in (
        (("--pretrain", "nope"), "pretraining is masked or causal"),
        (("--pretrain", "masked", "--mask-rate", "1"), "the rate is the share"),
        (("--mask-rate", "0.2"), "give pretrain too"),
        (("--pretrain", "masked", "--budget", "3steps", "--pretrain-budget", "5s"), "one unit"),
    ):
        answer = cli("race", text_file, *words)
        refused(answer, told)
        assert "Value error" not in answer.err
        assert "value:" not in answer.err


def test_bad_budget(cli, text_file: Path) -> None:
    refused(cli("race", text_file, "--budget", "soon"), "soon", "60s")
    refused(cli("train", text_file, "--budget", "10parsecs"), "10parsecs")


@pytest.mark.parametrize("verb", ["evaluate", "generate", "forecast", "classify"])
def test_folder_that_holds_no_run(cli, tmp_path: Path, verb: str) -> None:
    more = {"evaluate": [], "generate": ["--prompt", "a"]}.get(verb, ["some.csv"])
    refused(cli(verb, tmp_path, *more), "not a run folder")


def test_forecast_and_classify_refuse_what_they_cannot_use(
    cli, classify_run: Path, forecast_run: Path, table_file: Path, tmp_path: Path
) -> None:
    refused(cli("forecast", classify_run, table_file), "classification")
    refused(cli("classify", forecast_run, table_file), "forecasting")
    refused(cli("classify", classify_run, table_file), ".ts")
    refused(cli("classify", classify_run, tmp_path / "none.ts"), "none.ts")
    refused(cli("forecast", forecast_run, tmp_path / "none.csv"), "none.csv")
    bad = tmp_path / "bad.csv"
    bad.write_text(table_file.read_text().replace("2024-01-02 03:00,", "2024-01-02 03:00,abc", 1))
    refused(cli("forecast", forecast_run, bad), "bad.csv", "'load'", "abc")


def test_generate_refuses_a_model_that_writes_no_text(cli, classify_run: Path) -> None:
    refused(cli("generate", classify_run, "--prompt", "a"), "classification")


def test_evaluate_refuses_data_of_another_kind(cli, classify_run: Path, text_file: Path) -> None:
    refused(cli("evaluate", classify_run, text_file), "classification")


def test_bad_device(cli, language_run: Path) -> None:
    refused(cli("evaluate", language_run, "--device", "gpuu"), "gpuu")


def test_options_nobody_knows(cli, text_file: Path, tmp_path: Path) -> None:
    refused(cli("race", text_file, "-s", "budgett=60s"), "budgett", "did you mean 'budget'")
    refused(cli("race", text_file, "-s", "data.lenght=5"), "lenght", "length")
    refused(cli("train", text_file, "-s", "training.lrr=5"), "lrr")
    refused(cli("race", text_file, "-s", "budget"), "dotted.key=value")
    refused(cli("race", text_file, "--lr", "fast"), "--lr", "fast")


def test_bad_config_file(cli, text_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "a.yaml"
    broken.write_text("models: [mamba\n")
    refused(cli("race", text_file, "-c", broken), "a.yaml", "YAML")
    broken.write_text("- mamba\n")
    refused(cli("race", text_file, "-c", broken), "options by name")
    refused(cli("race", text_file, "-c", tmp_path / "none.yaml"), "none.yaml")


def test_unknown_things_to_look_up(cli) -> None:
    refused(cli("list", "mixer"), "mixers")
    refused(cli("cite", "mambo"), "mambo", "mamba")
    refused(cli("inspect", "mambo"), "mambo", "mamba")
    refused(cli("bench", "ssdd", "--settled"), "ssdd", "ssd")


def test_unknown_verb_and_option(cli) -> None:
    answer = cli("rase")
    assert answer.code == 2
    assert "race" in answer.err
    assert cli("list", "--jason").code == 2


def test_debug_shows_where_it_arose(cli) -> None:
    with pytest.raises(ValueError, match="no-such-file"):
        cli("race", "no-such-file", "--debug")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["list", "mixers"], 0), (["evaluate", "nowhere"], 2), (["frobnicate"], 2), (["--help"], 0), ([], 2)],
)
def test_exit_codes_of_the_process(words: list[str], code: int) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "hippodrome", *words], capture_output=True, text=True, check=False
    )
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr


def test_settings_prefer_flags_to_assignments_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "o.yaml"
    file.write_text("budget: 60s\ndepth: 3\ntraining:\n  lr: 0.1\n  warmup: 0.2\n")
    settings = Settings(file, ["depth=4", "training.lr=1e-3", "extra=1"])
    assert settings.take("budget", "5s") == "5s"
    assert settings.take("depth") == 4
    assert settings.take("seed", None, 7) == 7
    assert settings.section("training") == {"lr": 1e-3, "warmup": 0.2}
    with pytest.raises(ValueError, match="extra"):
        settings.finish()


def test_a_value_cannot_become_a_section() -> None:
    with pytest.raises(ValueError, match="already a value"):
        Settings(None, ["a=1", "a.b=2"])
    with pytest.raises(ValueError, match="section"):
        Settings(None, ["data=1"]).section("data")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("1e-3", 1e-3), ("true", True), ("[1, 2]", [1, 2]), ("60s", "60s"), ("a: b: c", "a: b: c")],
)
def test_values_are_read_as_yaml(text: str, value: object) -> None:
    assert read(text) == value
