"""Hidden tokens in a race and from the command line: who runs, what is shown, filled in, and begun from."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hippodrome import race, runs
from hippodrome.cli import app
from hippodrome.data import open_source
from hippodrome.generate.filling import fill, filled, holed
from hippodrome.race.settings import BASELINES, RaceSettings


@pytest.fixture(scope="module")
def rhyme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("The quick brown fox jumps over the lazy dog.\n" * 120, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(rhyme: Path) -> Path:
    """A run folder of a few steps."""
    out = rhyme.parent / "run"
    words = ["train", str(rhyme), "--kind", "masked_language", "--model", "bi-min_gru", "--width", "32"]
    words += ["--depth", "1", "--budget", "60steps", "--lr", "1e-2", "--device", "cpu", "--out", str(out)]
    answer = CliRunner().invoke(app, [*words, "-s", "data.length=48", "-s", "training.validations=1"])
    assert answer.exit_code == 0, answer.output
    return out


def test_a_race_of_hidden_tokens_shows_them_filled_in(rhyme: Path, tmp_path: Path) -> None:
    task = open_source(rhyme, kind="masked_language", length=32)
    assert BASELINES["masked_language"] == ("bi-gru", "bi-attention")
    quick = {"models": "bi-min_gru", "baselines": ("min_gru",), "budget": "2steps", "parameters": 4000}
    quick |= {"depth": 1, "batch_size": 2, "validations": 1, "lengths": (), "device": "cpu"}
    result = race(task, settings=RaceSettings.model_validate(quick), folder=tmp_path / "r", live=False)
    assert {s.name for s in result.standings} == {"bi-min_gru", "min_gru"}
    assert result.metric == "nats"
    assert "unigram" in result.naive
    causal = {s.name: s.state_bytes is not None for s in result.standings}
    assert causal == {"bi-min_gru": False, "min_gru": True}
    first = result.exhibits.filled[0]
    assert len(first.texts) == len(first.truth) + 1
    assert {len(guesses) for guesses in first.guesses.values()} == {len(first.truth)}
    whole = "".join(a + b for a, b in zip(first.texts, [*first.truth, ""], strict=True))
    assert whole in rhyme.read_text()
    page = result.report.read_text()
    assert "<h2>Holes filled in</h2>" in page
    assert "<del>" in page


def test_training_learns_the_rhyme_and_fills_it_in(folder: Path) -> None:
    run = runs.load(folder)
    assert run.tokenizer is not None
    found = fill(run.model, run.tokenizer, "The quick br[MASK]wn fox jumps ov[MASKx2] the lazy dog.")
    assert found.text == "The quick brown fox jumps over the lazy dog."
    assert [len(place.tokens) for place in found.places] == [5, 5, 5]
    assert all(sorted(place.chances, reverse=True) == place.chances for place in found.places)
    with pytest.raises(ValueError, match="nothing to fill in"):
        fill(run.model, run.tokenizer, "whole")


def test_evaluation_at_another_length_asks_for_the_same_places(folder: Path) -> None:
    asked = {}
    for length in (16, 64):
        words = ["evaluate", str(folder), "--json", "-s", f"data.length={length}"]
        asked[length] = json.loads(CliRunner().invoke(app, words).stdout)["metrics"]
    assert asked[16]["nats"] < 3
    assert asked[64]["nats"] < 3
    assert asked[16] != asked[64]


def test_the_command_line_fills_in_and_scores(folder: Path) -> None:
    answer = CliRunner().invoke(
        app, ["fill", str(folder), "--json", "--top", "2"], input="The l[MASK]zy dog\n"
    )
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["text"].startswith("The l")
    assert len(told["places"][0]["tokens"]) == 2
    text = "over the lazy dog."
    told = json.loads(CliRunner().invoke(app, ["fill", str(folder), text, "--score", "--json"]).stdout)
    run = runs.load(folder)
    one = run.model(torch.tensor([[*b"over the la", run.model.mask_token, *b"y dog."]]))[0][0, 11]
    assert told["each"][11] == pytest.approx(-float(one.log_softmax(-1)[ord("z")].detach()), rel=1e-5)
    refused = CliRunner().invoke(app, ["fill", str(folder), "a[MASK]", "--score"])
    assert refused.exit_code == 2
    assert "none that is hidden" in refused.output


def test_the_surest_place_is_filled_in_first_and_read_by_the_others() -> None:
    class Counting(torch.nn.Module):
        """Sure of a place by how near to the start it is; says the number of holes that are left."""

        mask_token = 9

        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple]:
            left = int((inputs == 9).sum())
            logits = torch.zeros(1, inputs.shape[1], 9)
            logits[0, :, left] = 10 - torch.arange(inputs.shape[1])
            return logits, ()

    tokens = torch.tensor([9, 0, 9, 9])
    assert filled(Counting(), tokens).tolist() == [3, 0, 2, 1]
    assert filled(Counting(), tokens, at_once=True).tolist() == [3, 0, 3, 3]


def test_letters_of_no_token_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "g.fa"
    file.write_text(">x\n" + "ACGT" * 80 + "\n")
    task = open_source(file)
    assert task.tokenizer is not None
    assert holed(3, task.tokenizer, "ac[MASK]T").tolist() == [7, 8, 3, 10]
    with pytest.raises(ValueError, match="knows no token for some letter of 'AX'"):
        holed(3, task.tokenizer, "AX[MASK]")
