"""What a race leaves behind: the numbers of every contender, as plain data that ``result.json`` holds."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hippodrome.race.files import write_text

# The 97.5 % points of Student's t with 1, 2, ... degrees of freedom; past the end of the table it is the
# normal's.
_T = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants", protected_namespaces=())


class Estimate(_Data):
    """A mean over seeds, and the half-width of its 95 % interval by Student's t; None with a single seed."""

    mean: float
    half: float | None = None
    values: list[float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """The mean of these values and its interval."""
        n = len(values)
        half = student(n - 1) * stdev(values) / math.sqrt(n) if n > 1 else None
        return cls(mean=mean(values), half=half, values=list(values))


class CurvePoint(_Data):
    """One moment of a training run; seconds are of training alone."""

    step: int
    tokens: int
    seconds: float
    train: float | None = None
    valid: float | None = None


class Pretraining(_Data):
    """What a contender learned before its task: ``valid`` on training inputs that were held out for it."""

    folder: str
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    valid: dict[str, float] = {}


class Trial(_Data):
    """One training run of a contender: a learning rate and a seed. ``folder`` is relative to the race's.

    ``before``: the pretraining that it started from; what it took is not in ``steps`` and the like.
    """

    seed: int
    lr: float
    folder: str
    status: Literal["finished", "diverged", "failed"] = "finished"
    note: str = ""
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    valid: dict[str, float] = {}
    test: dict[str, float] = {}
    curve: list[CurvePoint] = []
    before: Pretraining | None = None


class ScalingData(_Data):
    """One forward pass of one row, and one more token, against the length; None where not measured."""

    lengths: list[int]
    forward_seconds: list[float | None]
    forward_bytes: list[int | None]
    step_seconds: list[float | None]


class Standing(_Data):
    """One contender at the end.

    ``train_bytes``: weights, gradients, optimizer state and the peak of one training step.
    ``step_seconds``: one token at batch 1 after ``context`` tokens. It, the state and the bytes of a token
    are None for what reads later tokens too. ``scratch``: the contender with the same model that started from
    scratch, where this one was pretrained. ``faster_than_attention_from``: the
    measured length from which on one forward pass beats attention's; None where it does not or was not
    measured.
    """

    name: str
    baseline: bool = False
    scratch: str | None = None
    status: Literal["finished", "diverged", "failed"] = "finished"
    note: str = ""
    lr: float = 0.0
    width: int = 0
    depth: int = 0
    parameters: int = 0
    trials: list[Trial] = []
    valid: Estimate | None = None
    test: Estimate | None = None
    tests: dict[str, Estimate] = {}
    context: int = 0
    state_bytes: int | None = None
    flops_per_token: float | None = None
    bytes_per_token: int | None = None
    uncounted: list[str] = []
    tokens_per_second: float | None = None
    train_bytes: int | None = None
    step_seconds: float | None = None
    scaling: ScalingData | None = None
    faster_than_attention_from: int | None = None

    @property
    def chosen(self) -> list[Trial]:
        """The finished trials at the learning rate that won on validation."""
        return [t for t in self.trials if t.lr == self.lr and t.status == "finished"]


class ForecastExhibit(_Data):
    """One window of the test set: the past, what came, and what each contender said would come."""

    title: str
    past: list[float]
    truth: list[float]
    points: dict[str, list[float]]
    low: dict[str, list[float]] = {}
    high: dict[str, list[float]] = {}
    coverage: str = ""


class Confusion(_Data):
    """Answers of the winner on the test set: rows are the truth, columns the answer."""

    classes: list[str]
    counts: list[list[int]]


class FramesExhibit(_Data):
    """A test video and what each contender goes on with by itself, as one picture.

    ``picture`` is a PNG in base64; ``rows`` names its rows, the first the video itself.
    """

    rows: list[str]
    context: int
    picture: str


class FilledExhibit(_Data):
    """A piece of the test set with hidden places, and what each contender put there, all at once.

    ``texts`` are the stretches before, between and behind the places, one more than ``truth`` has. Each
    contender has as many ``guesses`` as that.
    """

    texts: list[str]
    truth: list[str]
    guesses: dict[str, list[str]]


class Exhibits(_Data):
    """What can be looked at: samples of text, hidden places filled in, forecasts, frames, confusions; empty
    where there are none."""

    prompt: str = ""
    samples: dict[str, str] = {}
    filled: list[FilledExhibit] = []
    forecasts: list[ForecastExhibit] = []
    frames: list[FramesExhibit] = []
    confusion: Confusion | None = None


class Pretext(_Data):
    """How the pretrained contenders were pretrained.

    ``hidden``: share of the steps that were hidden, ``span`` at a time; None where the next one was foretold.
    ``sequences``: training inputs that were learned from, and those held out to choose the weights by.
    ``causal``: contenders that fill a hidden step in from the past alone. ``left_out``: contenders that read
    later steps, and so ran from scratch only.
    """

    kind: str
    budget: str
    scratch_budget: str
    hidden: float | None = None
    span: int | None = None
    sequences: dict[str, int] = {}
    causal: list[str] = []
    left_out: list[str] = []


class RaceResult(_Data):
    """A finished race. ``winner`` is the best on validation; None when nobody finished.

    ``standings`` are in the order of rank. ``naive``: name -> metric -> value on test, of rules that learn
    nothing.
    """

    format: int = 1
    kind: str
    task: str
    details: dict[str, Any]
    metric: str
    better: Literal["lower", "higher"]
    budget: str
    seeds: list[int]
    standings: list[Standing]
    naive: dict[str, dict[str, float]] = {}
    winner: str | None = None
    pretext: Pretext | None = None
    verdict: list[str] = []
    exhibits: Exhibits = Exhibits()
    settings: dict[str, Any] = {}
    machine: dict[str, str] = {}
    versions: dict[str, str] = {}
    command: str = ""
    began: str = ""
    wall_seconds: float = 0.0
    folder: str = ""

    def standing(self, name: str) -> Standing:
        """The standing of one contender."""
        return next(s for s in self.standings if s.name == name)

    @property
    def training(self) -> str:
        """What each contender was given, in words."""
        if self.pretext is None:
            return f"{self.budget} of training"
        return (
            f"{self.pretext.budget} of pretraining and {self.budget} on the task, or "
            f"{self.pretext.scratch_budget} on the task from scratch,"
        )

    @property
    def pairs(self) -> list[tuple[Standing, Standing]]:
        """Each model from scratch and pretrained, where both finished; best from scratch first."""
        done = {s.name: s for s in self.finished}
        both = [(done[s.scratch], s) for s in self.finished if s.scratch in done]
        return sorted(both, key=lambda pair: self.finished.index(pair[0]))

    @property
    def finished(self) -> list[Standing]:
        """Those that finished, best on validation first."""
        return [s for s in self.standings if s.status == "finished" and s.valid is not None]

    @property
    def report(self) -> Path:
        """The report's path."""
        return Path(self.folder) / "report.html"

    @property
    def winner_folder(self) -> Path:
        """The run folder of the winner."""
        return Path(self.folder) / "winner"

    def save(self, path: Path) -> None:
        """Write it as JSON, in one piece or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "RaceResult":
        """The result that ``save`` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))


def rank(standings: Sequence[Standing], better: str) -> list[Standing]:
    """Best on validation first; after them those that did not finish, in the order they had."""
    sign = 1 if better == "lower" else -1
    done = [s for s in standings if s.status == "finished" and s.valid is not None]
    rest = [s for s in standings if s not in done]

    def key(s: Standing) -> tuple[float, float]:
        # Equal accuracies are told apart by how sure the answers were.
        doubt = [t.valid["nats"] for t in s.chosen if "nats" in t.valid]
        return (sign * s.valid.mean if s.valid else 0.0, mean(doubt) if doubt else 0.0)

    return [*sorted(done, key=key), *rest]
