"""Whole races, tiny: what they leave behind, going on after a stop, falls, newcomers, other plans."""

import json
import sys
from pathlib import Path

import pytest
import torch

import hippodrome.mixers
from hippodrome import config, race, runs
from hippodrome.data.base import Task
from hippodrome.data.text import open_text
from hippodrome.estimators import Generator, load
from hippodrome.race.plan import fingerprint, make_plan
from hippodrome.race.result import RaceResult
from hippodrome.race.settings import RaceSettings

SMALL = {
    "models": ("min_gru",),
    "budget": "8steps",
    "parameters": 3000,
    "depth": 1,
    "batch_size": 2,
    "validations": 2,
    "lengths": (8, 16),
    "device": "cpu",
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    file = tmp_path_factory.mktemp("text") / "horses.txt"
    file.write_text("A horse, a horse, my kingdom for a horse. " * 40)
    return open_text(file, length=12)


def settings(**changes: object) -> RaceSettings:
    return RaceSettings.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def finished(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[RaceResult, Path, list[dict]]:
    folder = tmp_path_factory.mktemp("race") / "it"
    events: list[dict] = []
    chosen = settings(seeds=2, learning_rates=(1e-3, 5e-3))
    result = race(
        task, settings=chosen, folder=folder, live=False, on_event=events.append, command="the command"
    )
    return result, folder, events


def test_a_race_leaves_a_report_a_result_and_a_winner(finished) -> None:
    result, folder, _ = finished
    assert {s.name for s in result.standings} == {"min_gru", "gru", "attention"}
    assert [s.status for s in result.standings] == ["finished"] * 3
    assert result.winner == result.standings[0].name
    assert RaceResult.read(folder / "result.json") == result
    page = (folder / "report.html").read_text()
    assert "the command" in page
    assert (folder / "winner" / "report.html").read_text() == page
    assert result.verdict[0].startswith(f"Take {result.winner}:")
    assert result.naive["unigram"]["nats"] > 0


def test_the_winner_is_a_run_folder_of_its_own(finished, task: Task) -> None:
    result, folder, _ = finished
    run = runs.load(folder / "winner")
    best = min(result.standings[0].chosen, key=lambda t: t.valid["nats"])
    assert runs.evaluate(run, task, "test")["nats"] == pytest.approx(best.test["nats"], rel=1e-6)
    assert not (folder / "winner").is_symlink()
    assert not (folder / "winner" / "checkpoints").exists()
    opened = load(folder)
    assert isinstance(opened, Generator)
    assert opened.model == result.winner
    assert opened.generate("A horse", 4)


def test_the_better_rate_goes_on_with_the_other_seeds(finished) -> None:
    result, _, _ = finished
    for standing in result.standings:
        tried = [(t.lr, t.seed) for t in standing.trials]
        assert tried[:2] == [(1e-3, 0), (5e-3, 0)]
        first = {t.lr: t.valid["nats"] for t in standing.trials if t.seed == 0}
        assert standing.lr == min(first, key=lambda lr: first[lr])
        assert tried[2:] == [(standing.lr, 1)]
        assert [t.seed for t in standing.chosen] == [0, 1]
        assert standing.valid.half is not None
        assert not any(t.test for t in standing.trials if t not in standing.chosen)


def test_everyone_has_the_same_budget_and_about_as_many_parameters(finished) -> None:
    result, _, _ = finished
    for standing in result.standings:
        assert all(t.steps == 8 and t.tokens == 8 * 2 * 12 for t in standing.trials)
        assert 0.5 < standing.parameters / 3000 < 2
        assert standing.context == 12
        assert standing.state_bytes > 0
        assert standing.train_bytes > standing.parameters * 12
        assert standing.tokens_per_second > 0
        assert standing.step_seconds > 0
        assert standing.scaling.lengths == [8, 16]
        assert standing.uncounted == []


def test_events_tell_who_runs_and_how_far(finished) -> None:
    _, _, events = finished
    assert events[0]["event"] == "plan"
    assert "training runs" in events[0]["text"]
    starts = [e for e in events if e["event"] == "start"]
    ends = [e for e in events if e["event"] == "end"]
    assert len(starts) == len(ends) == 9
    assert all(e["contender"] for e in events[1:])
    assert any(e["event"] == "validation" and "nats" in e for e in events)


def test_samples_go_on_from_the_test_text(finished, task: Task) -> None:
    result, _, _ = finished
    shown = result.exhibits
    assert set(shown.samples) == {"min_gru", "gru", "attention"}
    assert shown.prompt == task.tokenizer.decode(task.test[0].tokens.tolist())
    assert all(shown.samples.values())


def test_a_finished_race_started_again_trains_nothing(finished, task: Task) -> None:
    result, folder, _ = finished
    events: list[dict] = []
    chosen = settings(seeds=2, learning_rates=(1e-3, 5e-3))
    again = race(task, settings=chosen, folder=folder, live=False, on_event=events.append, command="again")
    assert not [e for e in events if e["event"] in ("start", "step", "validation")]
    assert [s.model_dump() for s in again.standings] == [s.model_dump() for s in result.standings]


def test_another_plan_in_the_same_folder_is_refused(finished, task: Task, tmp_path: Path) -> None:
    _, folder, _ = finished
    with pytest.raises(ValueError, match=r"another plan: budget was '8 steps' and is '9 steps'"):
        race(
            task,
            settings=settings(seeds=2, learning_rates=(1e-3, 5e-3), budget="9steps"),
            folder=folder,
            live=False,
        )
    with pytest.raises(ValueError, match="holds a race already"):
        race(task, settings=settings(), folder=folder, live=False, resume=False)
    (tmp_path / "mine.txt").write_text("no race")
    with pytest.raises(ValueError, match="not empty and holds no race"):
        race(task, settings=settings(), folder=tmp_path, live=False)


def test_a_race_that_was_stopped_goes_on_to_the_same_end(task: Task, tmp_path: Path) -> None:
    chosen = settings(baselines=("gru",))

    def stop(event: dict) -> None:
        if event["event"] == "validation" and event["contender"] == "gru":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(task, settings=chosen, folder=tmp_path / "a", live=False, on_event=stop)
    assert not (tmp_path / "a" / "result.json").exists()
    events: list[dict] = []
    resumed = race(task, settings=chosen, folder=tmp_path / "a", live=False, on_event=events.append)
    assert "min_gru" not in [e.get("contender") for e in events if e["event"] == "start"]
    whole = race(task, settings=chosen, folder=tmp_path / "b", live=False)
    for one, other in zip(resumed.standings, whole.standings, strict=True):
        assert one.name == other.name
        assert one.valid == other.valid
        assert one.test == other.test


NEWCOMER = '''
"""Made in a test: {about}."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hippodrome.mixers.base import Mixer


class State(NamedTuple):
    h: Tensor


class {name}(Mixer):
    """h_t = h_(t-1) / 2 + W x_t (nobody 2024, equation 1)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.map = nn.Linear(d_model, d_model)
        self.calls = 0

    def init_state(self, batch: int, max_length: int | None = None) -> State:
        return State(self.map.weight.new_zeros(batch, self.d_model))

    def step(self, x_t, state, *, dt_t=None):
        h = state.h / 2 + self.map(x_t)
        return h, State(h)

    def forward(self, x, state=None, *, resets=None, dt=None):
        state = self.init_state(x.shape[0]) if state is None else state
        self.calls += self.training
        {fault}
        ys = []
        for x_t in x.unbind(1):
            y, state = self.step(x_t, state)
            ys.append(y)
        return torch.stack(ys, 1), state

    @classmethod
    def example(cls):
        return cls(4)
'''


@pytest.fixture
def newcomers(tmp_path: Path):
    """Writes mixers into a folder that counts as part of mixers/, each one file, nothing else touched."""
    folder = tmp_path / "mixers"
    folder.mkdir()
    hippodrome.mixers.__path__.append(str(folder))

    def write(kind: str, fault: str = "pass") -> None:
        name = kind.title().replace("_", "")
        (folder / f"{kind}.py").write_text(NEWCOMER.format(about=kind, name=name, fault=fault))
        _look_again()

    yield write
    hippodrome.mixers.__path__.remove(str(folder))
    for kind in [p.stem for p in folder.glob("*.py")]:
        sys.modules.pop(f"hippodrome.mixers.{kind}", None)
    _look_again()


def _look_again() -> None:
    """A running process has read the folders already; a new one would not need this."""
    for name in ("hippodrome.config.schema", "hippodrome.config.find"):
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def test_a_newcomer_races_by_the_name_of_its_file(task: Task, tmp_path: Path, newcomers) -> None:
    newcomers("halving")
    assert "halving" in config.kinds("mixers")
    result = race(task, settings=settings(models="halving", baselines=()), folder=tmp_path / "r", live=False)
    assert result.winner == "halving"
    assert type(runs.load(result.winner_folder).model.backbone.blocks[0].mixer).__name__ == "Halving"


def test_who_diverges_or_breaks_is_told_and_the_others_race_on(task: Task, tmp_path: Path, newcomers) -> None:
    newcomers("bursting", "x = x * float('nan') if self.calls > 9 else x")
    newcomers("breaking", "if self.calls > 9: [][1]")
    chosen = settings(models=("bursting", "breaking", "min_gru"), baselines=(), budget="15steps")
    result = race(task, settings=chosen, folder=tmp_path / "r", live=False)
    assert result.winner == "min_gru"
    assert result.standing("bursting").status == "diverged"
    assert "not finite" in result.standing("bursting").note
    assert result.standing("breaking").status == "failed"
    assert "IndexError" in result.standing("breaking").note
    page = (tmp_path / "r" / "report.html").read_text()
    assert "bursting diverged: " in page
    assert "breaking failed: " in page


def test_nobody_finishing_is_a_result_too(task: Task, tmp_path: Path, newcomers) -> None:
    newcomers("bursting", "x = x * float('nan') if self.calls > 4 else x")
    result = race(task, settings=settings(models="bursting", baselines=()), folder=tmp_path / "r", live=False)
    assert result.winner is None
    assert result.verdict[0].startswith("Nobody finished")
    assert not (tmp_path / "r" / "winner").exists()


def test_who_cannot_take_a_step_is_refused_before_the_start(task: Task, tmp_path: Path, newcomers) -> None:
    newcomers("broken", "[][1]")
    with pytest.raises(ValueError, match="broken cannot run a training step: IndexError"):
        race(task, settings=settings(models="broken"), folder=tmp_path / "r", live=False)
    assert not (tmp_path / "r").exists()


def test_an_unknown_model_is_refused_with_the_nearest_name(task: Task, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'min_gru'"):
        race(task, models="min_gur", folder=tmp_path / "r", live=False)


def test_the_random_state_and_the_threads_of_the_caller_stay(task: Task, tmp_path: Path) -> None:
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    race(task, settings=settings(baselines=()), folder=tmp_path / "r", threads=1, live=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_plan_matches_widths_and_adds_the_baselines(task: Task) -> None:
    plan = make_plan(task, settings(models="min_gru,gru", parameters=20_000), outlook=True)
    assert [e.name for e in plan.entries] == ["min_gru", "gru", "attention"]
    assert [e.baseline for e in plan.entries] == [False, False, True]
    assert all(0.8 < e.parameters / 20_000 < 1.2 for e in plan.entries)
    assert plan.outlook.runs == 3
    assert set(plan.outlook.needs) == {"min_gru", "gru", "attention"}
    assert all(n.step_seconds > 0 and n.tokens_per_step == 24 for n in plan.outlook.needs.values())
    assert json.loads(plan.model_dump_json())["settings"]["models"] == ["min_gru", "gru", "attention"]


def test_a_longer_pattern_takes_its_own_depth(task: Task) -> None:
    plan = make_plan(task, settings(models="min_grux2+gru", baselines=()), outlook=False)
    assert plan.entries[0].depth == 3
    kinds = [b["mixer"]["kind"] for b in plan.entries[0].spec["backbone"]["blocks"]]
    assert kinds == ["min_gru", "min_gru", "gru"]


def test_too_little_memory_is_said_before_the_start(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hippodrome.race.plan.free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match="Take a smaller batch"):
        make_plan(task, settings())


def test_the_fingerprint_changes_with_the_data(task: Task, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("A mule, a mule, my kingdom for a mule.... " * 40)
    assert fingerprint(task) == fingerprint(task)
    assert fingerprint(task) != fingerprint(open_text(other, length=12))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 0}, "seeds are a count"),
        ({"seeds": [1, 1]}, "seeds are a count"),
        ({"learning_rates": [-1]}, "learning rates are numbers above 0"),
        ({"budget": "1 week"}, "a budget is a number with a unit"),
        ({"lengths": (4, 2)}, "lengths increase"),
        ({"modles": "gru"}, "modles"),
    ],
)
def test_settings_are_checked(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RaceSettings.model_validate(given)
