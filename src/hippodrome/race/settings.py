"""What a race is asked to do, with defaults that depend on the kind of task and the size of its data."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hippodrome.data.pretext import check as check_pretext
from hippodrome.train.settings import Budget

MODELS = {
    "language": ("mamba2", "mamba", "gla", "s4d", "rg_lru", "mamba2x3+attention"),
    "masked_language": ("bi-mamba2", "bimamba", "hydra", "bi-s4d", "bi-rg_lru"),
    "encoder": ("bi-mamba2", "bimamba", "hydra", "bi-s4d"),
    "classification": ("mamba2", "mamba", "s4d", "lru", "min_gru"),
    "regression": ("mamba2", "mamba", "s4d", "lru", "min_gru"),
    "forecasting": ("mamba2", "mamba", "s4d", "lru", "min_gru"),
    "video": ("conv_s5",),
    "vision": ("bi-mamba", "cross-mamba", "ss2d", "pyramid:ss2d", "pyramid:evss:inverted_residual"),
}
BASELINES = {
    **dict.fromkeys(MODELS, ("gru", "attention")),
    **dict.fromkeys(("masked_language", "encoder"), ("bi-gru", "bi-attention")),
    "video": ("conv_lstm",),
    "vision": ("bi-attention", "inverted_residual"),
}
"""In every race, asked for or not. A flattened frame leaves a GRU of so few parameters no width."""
DEPTH = {**dict.fromkeys(MODELS, 2), "language": 4, "masked_language": 4}
BATCH = {
    "language": 16,
    "masked_language": 16,
    "encoder": 32,
    "classification": 16,
    "regression": 32,
    "forecasting": 32,
    "video": 8,
    "vision": 32,
}
DROPOUT = {**dict.fromkeys(MODELS, 0.0), "classification": 0.1, "forecasting": 0.1}
RATE = {**dict.fromkeys(MODELS, 4e-3), "forecasting": 1e-3, "vision": 2e-3}
"""Peak learning rates for AdamW at widths of 50 to 300; attention trains at half of them."""
SLOWER = {"attention": 0.5}

LENGTHS = {**dict.fromkeys(MODELS, (64, 256, 1024, 4096, 16384)), "video": (4, 16, 64, 256)}
"""Where a forward pass is measured: in tokens or steps, of videos in frames."""

PARAMETERS = {
    "language": (100_000, 5),
    "masked_language": (100_000, 5),
    "encoder": (100_000, 5),
    "classification": (40_000, 5),
    "regression": (40_000, 5),
    "forecasting": (60_000, 5),
    "video": (100_000, 200),
    "vision": (100_000, 100),
}
"""The smallest model, and the number of training values that carry one parameter."""
LARGEST = 2_000_000


class RaceSettings(BaseModel):
    """How a race is run. What is None is chosen from the data.

    ``learning_rates``: one for all, or several to search among; the best on validation of the first seed goes
    on with the other seeds. ``parameters``: all contenders get the width that comes nearest. ``lengths``:
    where time and memory of one forward pass are measured, in tokens or frames; empty for none. ``options``:
    constructor arguments by kind of mixer or backbone, for the contenders that hold it.

    With ``pretrain`` every contender runs twice, from scratch and pretrained on the training inputs alone
    ("masked" or "causal") for ``pretrain_budget`` (None: as long as ``budget``) at the same learning rate.
    ``budget`` is then that of the training on the task, and whoever starts from scratch gets both together,
    or with ``scratch_budget="same"`` no more than the others on the task. ``mask_rate``: the share of the
    steps that is hidden; None goes by the data. ``mask_span``: steps hidden together; None hides each alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    models: tuple[str, ...] | None = None
    budget: Budget = Budget(seconds=60)
    parameters: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=1)
    learning_rates: tuple[float, ...] | None = None
    seeds: tuple[int, ...] = (0,)
    batch_size: int | None = Field(default=None, ge=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    validations: int = Field(default=10, ge=1)
    valid_batches: int | None = Field(default=128, ge=1, description="of each validation but the last")
    patience: int | None = Field(default=None, ge=1)
    precision: str = "32-true"
    compile: bool = False
    workers: int = Field(default=0, ge=0)
    baselines: tuple[str, ...] | None = None
    lengths: tuple[int, ...] | None = None
    device: str = "auto"
    options: dict[str, dict[str, Any]] = {}
    pretrain: Literal["masked", "causal"] | None = None
    pretrain_budget: Budget | None = None
    scratch_budget: Literal["total", "same"] = "total"
    mask_rate: float | None = None
    mask_span: int | None = None

    def lengths_for(self, kind: str) -> tuple[int, ...]:
        """The lengths, those of the kind of task where none are given."""
        return LENGTHS[kind] if self.lengths is None else self.lengths

    @property
    def pretraining(self) -> Budget:
        """The budget of a pretraining."""
        return self.pretrain_budget or self.budget

    @property
    def from_scratch(self) -> Budget:
        """The budget of a contender that starts from scratch."""
        if self.pretrain is None or self.scratch_budget == "same":
            return self.budget
        mine, more = self.budget.model_dump(), self.pretraining.model_dump()
        return Budget(**{unit: value and value + more[unit] for unit, value in mine.items()})

    @model_validator(mode="after")
    def _pretext(self) -> "RaceSettings":
        if self.pretrain is None:
            named = ("pretrain_budget", "mask_rate", "mask_span")
            for name in (n for n in named if getattr(self, n) is not None):
                raise ValueError(f"{name} is of a pretraining, and none is asked for: give pretrain too")
            return self
        check_pretext(self.pretrain, self.mask_rate, self.mask_span)
        units = [{u for u, v in b.model_dump().items() if v} for b in (self.budget, self.pretraining)]
        if units[0] != units[1] and self.scratch_budget == "total":
            raise ValueError(
                f"who starts from scratch gets both budgets together, so they have one unit; got "
                f"{self.budget} and {self.pretraining}. Give both alike, or scratch_budget=same"
            )
        return self

    @field_validator("pretrain", mode="before")
    @classmethod
    def _pretrain(cls, value: Any) -> Any:
        if value is not None:
            check_pretext(str(value), None, None)
        return value

    @field_validator("budget", "pretrain_budget", mode="before")
    @classmethod
    def _budget(cls, value: Any) -> Any:
        return Budget.parse(value) if isinstance(value, str) else value

    @field_validator("models", mode="before")
    @classmethod
    def _models(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        return None if names is None else tuple(dict.fromkeys(str(n).replace(" ", "") for n in names))

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        seeds = tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(seeds, Sequence) and (not seeds or len(set(seeds)) != len(seeds)):
            raise ValueError(f"seeds are a count of 1 or more, or different numbers; got {value!r}")
        return seeds

    @field_validator("learning_rates", mode="before")
    @classmethod
    def _rates(cls, value: Any) -> Any:
        rates = (value,) if isinstance(value, int | float) else value
        if rates is not None and (not rates or any(not 0 < float(r) < 10 for r in rates)):
            raise ValueError(f"learning rates are numbers above 0, such as 0.001; got {value!r}")
        return rates

    @field_validator("lengths")
    @classmethod
    def _lengths(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (list(value) != sorted(set(value)) or any(t < 1 for t in value)):
            raise ValueError(f"lengths increase and are 1 or more; got {value}")
        return value


def rate(kind: str, layers: Sequence[str]) -> float:
    """The learning rate of a stack of these mixers if none is searched: that of its most careful layer."""
    return RATE[kind] * min(SLOWER.get(layer, 1.0) for layer in layers)


def parameters_for(kind: str, values: int) -> int:
    """A number of parameters that this many training values can carry, to two digits."""
    smallest, share = PARAMETERS[kind]
    wanted = min(max(smallest, values // share), LARGEST)
    digits = 10 ** (len(str(wanted)) - 2)
    return wanted // digits * digits
