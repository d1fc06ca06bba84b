"""Races with pretraining: who runs how long, what is left behind, going on after a stop, what is refused."""

import re
from pathlib import Path

import pytest
import torch
from race_example import example
from safetensors.torch import load_file

from hippodrome import race, runs
from hippodrome.data import open_source
from hippodrome.data.base import Task
from hippodrome.models.pretraining import PretrainingModel
from hippodrome.race import charts, report
from hippodrome.race.plan import make_plan
from hippodrome.race.pretraining import Start
from hippodrome.race.result import Estimate, Pretext, Pretraining, RaceResult
from hippodrome.race.settings import RaceSettings
from hippodrome.race.verdict import spread, verdict
from hippodrome.train.settings import Budget

SMALL = {
    "models": ("min_gru",),
    "baselines": (),
    "budget": "4steps",
    "parameters": 2000,
    "depth": 1,
    "batch_size": 4,
    "validations": 2,
    "lengths": (),
    "device": "cpu",
    "pretrain": "masked",
    "pretrain_budget": "6steps",
}


def settings(**changes: object) -> RaceSettings:
    return RaceSettings.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def task() -> Task:
    return open_source("listops", length=24, count=120)


@pytest.fixture(scope="module")
def finished(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[RaceResult, Path, list[dict]]:
    folder, events = tmp_path_factory.mktemp("race") / "it", []
    chosen = settings(seeds=2, models="min_gru,bi-min_gru")
    result = race(task, settings=chosen, folder=folder, live=False, on_event=events.append, command="this")
    return result, folder, events


def test_everyone_runs_from_scratch_and_pretrained_with_as_much_training(finished) -> None:
    result, _, _ = finished
    names = {"min_gru", "min_gru pretrained", "bi-min_gru", "bi-min_gru pretrained"}
    assert {s.name for s in result.standings} == names
    for standing in result.standings:
        assert [t.seed for t in standing.trials] == [0, 1]
        for trial in standing.trials:
            if standing.scratch is None:
                assert (trial.steps, trial.before) == (10, None)
            else:
                assert standing.name == f"{standing.scratch} pretrained"
                assert (trial.steps, trial.before.steps) == (4, 6)
                assert trial.before.valid["loss"] > 0
    assert {(a.name, b.name) for a, b in result.pairs} == {
        ("min_gru", "min_gru pretrained"),
        ("bi-min_gru", "bi-min_gru pretrained"),
    }
    first = next(s for s in result.standings if s.name == "min_gru")
    twin = next(s for s in result.standings if s.name == "min_gru pretrained")
    assert (first.parameters, first.step_seconds) == (twin.parameters, twin.step_seconds)


def test_the_best_of_all_on_validation_wins(finished) -> None:
    result, folder, _ = finished
    scores = [s.valid.mean for s in result.standings]
    assert scores == sorted(scores, reverse=True)
    assert result.winner == result.standings[0].name
    assert runs.load(folder / "winner").details["kind"] == "classification"
    assert RaceResult.read(folder / "result.json") == result


def test_the_result_says_how_it_was_pretrained(finished) -> None:
    result, folder, _ = finished
    told = result.pretext
    assert (told.kind, told.budget, told.scratch_budget) == ("masked", "6 steps", "10 steps")
    assert (told.hidden, told.span, told.sequences) == (0.1, None, {"train": 86, "valid": 10})
    assert (told.causal, told.left_out) == (["min_gru"], [])
    text = " ".join(result.verdict)
    assert "6 steps of pretraining and 4 steps on the task, or 10 steps on the task from scratch" in text
    assert "with 10 % of the steps hidden" in text
    assert "min_gru could read only what comes before it; the others read both sides" in text
    page = (folder / "report.html").read_text()
    assert "<h2>From scratch and pretrained</h2>" in page
    assert "6 steps of filling in hidden steps on 86 training inputs" in page


def test_pretraining_lies_beside_the_run_that_began_with_it(finished) -> None:
    result, folder, _ = finished
    trial = next(s for s in result.standings if s.name == "min_gru pretrained").trials[0]
    assert trial.before.folder == f"{trial.folder}-pretraining"
    model = runs.load(folder / trial.before.folder).model
    assert isinstance(model, PretrainingModel)
    head = runs.read_config(folder / trial.folder)
    assert head["begun_with"]
    scratch = next(s for s in result.standings if s.name == "min_gru").trials[0]
    assert "begun_with" not in runs.read_config(folder / scratch.folder)
    # Four steps from the pretrained weights end nearer to them than those of another draw do.
    begun = model.handed_on()
    ends = (load_file(folder / t.folder / "model.safetensors") for t in (trial, scratch))
    near, far = (sum(float((end[name] - begun[name]).abs().sum()) for name in begun) for end in ends)
    assert near < far / 2


def test_events_tell_the_pretraining_apart(finished) -> None:
    _, _, events = finished
    heard = [e for e in events if e.get("contender") == "min_gru pretrained" and e["seed"] == 0]
    kinds = [e["event"] for e in heard if e["event"] != "step"]
    assert kinds == ["pretraining"] * 3 + ["start", "validation", "validation", "end"]
    assert [e["step"] for e in heard if e["event"] == "pretraining" and "step" in e] == [3, 6]


def test_a_race_stopped_in_pretraining_or_behind_it_goes_on_to_the_same_end(
    task: Task, tmp_path: Path
) -> None:
    chosen = settings()
    whole = race(task, settings=chosen, folder=tmp_path / "whole", live=False)

    def stopper(event: str):
        def stop(heard: dict) -> None:
            if heard["event"] == event and heard["contender"] == "min_gru pretrained" and heard.get("step"):
                raise KeyboardInterrupt

        return stop

    for event in ("pretraining", "validation"):
        with pytest.raises(KeyboardInterrupt):
            race(task, settings=chosen, folder=tmp_path / "cut", live=False, on_event=stopper(event))
        assert not (tmp_path / "cut" / "result.json").exists()
    resumed = race(task, settings=chosen, folder=tmp_path / "cut", live=False)
    for one, other in zip(resumed.standings, whole.standings, strict=True):
        assert (one.name, one.valid, one.test) == (other.name, other.valid, other.test)
        for mine, theirs in zip(one.trials, other.trials, strict=True):
            for folder in (mine.folder, *([mine.before.folder] if mine.before else [])):
                a, b = (load_file(tmp_path / x / folder / "model.safetensors") for x in ("cut", "whole"))
                assert all(torch.equal(a[name], b[name]) for name in b)
            assert mine.before == (
                theirs.before and theirs.before.model_copy(update={"seconds": mine.before.seconds})
            )


def test_what_reads_later_steps_does_not_foretell_them(task: Task, tmp_path: Path) -> None:
    chosen = settings(pretrain="causal", models="min_gru,bi-min_gru")
    result = race(task, settings=chosen, folder=tmp_path / "r", live=False)
    assert {s.name for s in result.standings} == {"min_gru", "min_gru pretrained", "bi-min_gru"}
    assert result.pretext.left_out == ["bi-min_gru"]
    assert result.pretext.hidden is None
    text = " ".join(result.verdict)
    assert "bi-min_gru ran from scratch only" in text
    assert "to foretell the next step" in text
    alone = settings(pretrain="causal", models="bi-min_gru")
    with pytest.raises(ValueError, match="all read later ones too"):
        make_plan(task, alone.model_copy(update={"baselines": ()}), outlook=False)


def test_the_plan_counts_pretraining(task: Task) -> None:
    alone = make_plan(task, settings(pretrain=None, pretrain_budget=None, budget="10steps"))
    plan = make_plan(task, settings(seeds=2))
    assert [e.name for e in plan.entries] == ["min_gru", "min_gru pretrained"]
    assert plan.outlook.runs == 6
    assert plan.outlook.seconds > alone.outlook.seconds
    assert plan.settings["pretrain_budget"] == "6 steps"
    assert "pretrain" not in alone.settings
    assert "pretrain was None and is 'masked'" in plan.differences(alone)
    assert "pretrain was 'masked' and is None" in alone.differences(plan)


def test_scratch_may_have_the_task_s_budget_alone() -> None:
    assert settings().from_scratch == Budget(steps=10)
    assert settings(scratch_budget="same").from_scratch == Budget(steps=4)
    assert settings(pretrain_budget=None).pretraining == Budget(steps=4)
    assert settings(scratch_budget="same", pretrain_budget="1s").pretraining == Budget(seconds=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pretrain": "hidden"}, "masked or causal; got 'hidden'"),
        ({"mask_rate": 0}, "above 0 and below 1; got 0"),
        ({"mask_rate": 1.5}, "above 0 and below 1; got 1.5"),
        ({"mask_span": 0}, "a span is one step or more"),
        ({"pretrain": "causal", "mask_rate": 0.2}, "hides nothing"),
        ({"pretrain_budget": "5s"}, "so they have one unit; got 4 steps and 5 s"),
        ({"pretrain": None}, "pretrain_budget is of a pretraining, and none is asked for"),
        ({"pretrain": None, "pretrain_budget": None, "mask_rate": 0.2}, "mask_rate is of a pretraining"),
        ({"scratch_budget": "none"}, "'total' or 'same'"),
    ],
)
def test_what_cannot_be_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**given)


def test_a_task_without_a_pretext_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    forecast = open_source("seasonal", count=400, look_back=24, horizon=4)
    with pytest.raises(ValueError, match=r"a forecasting task\. Leave the pretraining out"):
        race(forecast, settings=settings(), folder=tmp_path / "r", live=False)
    assert not (tmp_path / "r").exists()


def test_options_reach_the_contenders_that_hold_their_kind(task: Task) -> None:
    chosen = settings(
        pretrain=None, pretrain_budget=None, models="mamba,bi-s4d,min_gru",
        options={"mamba": {"d_state": 4}, "s4d": {"d_state": 6}},
    )  # fmt: skip
    plan = make_plan(task, chosen, outlook=False)
    mixers = {e.name: e.spec["backbone"]["blocks"][0]["mixer"] for e in plan.entries}
    assert mixers["mamba"]["d_state"] == 4
    assert mixers["bi-s4d"]["ahead"]["d_state"] == mixers["bi-s4d"]["back"]["d_state"] == 6
    assert mixers["min_gru"].keys() == {"kind", "d_model"}
    assert plan.settings["options"]["mamba"] == {"d_state": 4}
    wrong = settings(pretrain=None, pretrain_budget=None, options={"min_gur": {"a": 1}})
    with pytest.raises(ValueError, match="which is in no contender; did you mean 'min_gru'"):
        make_plan(task, wrong, outlook=False)


def pretrained_example() -> RaceResult:
    """The made-up result, each contender with a pretrained twin that does a little better."""
    result = example("classification")
    twins = []
    for i, s in enumerate([s for s in result.standings if s.status == "finished"]):
        twin = s.model_copy(deep=True, update={"name": f"{s.name} pretrained", "scratch": s.name})
        better = [v + 0.002 * i for v in s.valid.values]
        twin.valid, twin.test = Estimate.of(better), Estimate.of([v - 0.01 for v in better])
        for trial in twin.trials:
            trial.before = Pretraining(
                folder=f"{trial.folder}-pretraining",
                steps=400,
                tokens=400 * 2048,
                seconds=60,
                valid={"loss": 1.5},
            )
        twins.append(twin)
    result.standings += twins
    result.pretext = Pretext(
        kind="masked", budget="60 s", scratch_budget="120 s", hidden=0.5, sequences={"train": 9, "valid": 1},
        causal=["mamba2"],
    )  # fmt: skip
    result.verdict = verdict(result)
    return result


def test_the_report_shows_pairs_side_by_side() -> None:
    result = pretrained_example()
    page = report.render(result)
    section = page[
        page.index("<h2>From scratch and pretrained</h2>") : page.index("<h2>How they learned</h2>")
    ]
    for one, _ in result.pairs:
        assert section.count(f"</svg>{one.name}</td>") == 1
    assert "50 % of the steps hidden" in section
    assert section.count('aria-label="From scratch and pretrained"') == 1
    assert section.count(">1.5</td>") == len(result.pairs)
    assert "120 s on the task, the same in all" in section
    assert page.count(">pretraining</td>") == 3 * len(result.pairs)
    gaps = [max(c) - min(c) for c in zip(*((a.test.mean, b.test.mean) for a, b in result.pairs), strict=True)]
    assert f"{100 * gaps[0]:.1f} percentage points from scratch and {100 * gaps[1]:.1f}" in spread(result)
    assert spread(result) in section.replace("&#39;", "'")


def test_twins_share_a_colour_and_the_curve_of_one_begins_behind_its_pretraining() -> None:
    result = pretrained_example()
    look = charts.looks(result)
    assert len({(s.colour, s.marker, s.dash) for s in look.values()}) == len(look)
    for one, other in result.pairs:
        a, b = look[one.name], look[other.name]
        assert (a.colour, a.marker) == (b.colour, b.marker)
    trial = result.pairs[0][1].trials[0]
    assert charts._after(trial)[0].seconds == trial.curve[0].seconds + 60
    assert charts._after(trial)[0].tokens == trial.curve[0].tokens + 400 * 2048
    names = re.findall(r"min_gru|pretrained", charts.lengths(result, look)[0].svg)
    assert names == []


def test_a_pretraining_that_diverges_is_told_and_the_others_race_on(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fallen = Start(Pretraining(folder="somewhere", steps=2), None, "the loss was not finite by step 2")
    monkeypatch.setattr("hippodrome.race.trials.start", lambda *given: fallen)
    result = race(task, settings=settings(), folder=tmp_path / "r", live=False)
    twin = result.standing("min_gru pretrained")
    assert (twin.status, twin.note) == ("diverged", "in pretraining, the loss was not finite by step 2")
    assert twin.trials[0].before.steps == 2
    assert result.winner == "min_gru"
    assert result.pairs == []
    assert "<h2>From scratch and pretrained</h2>" not in result.report.read_text()
