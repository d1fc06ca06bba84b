"""Settings of a training run, and its budget. Light: no PyTorch in here."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_SECONDS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


class Budget(BaseModel):
    """How long to train: seconds of training, optimizer steps, or tokens. Exactly one is given.

    Seconds count training alone: validation, checkpoints and compilation are not on the clock.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    seconds: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> "Budget":
        if sum(v is not None for v in (self.seconds, self.steps, self.tokens)) != 1:
            raise ValueError("a budget is given in exactly one of seconds, steps and tokens")
        return self

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """A budget from words: ``60s``, ``2m``, ``1.5h``, ``500steps``, ``3ksteps``, ``200ktok``, ``1Mtok``.

        Raises ValueError for anything else.
        """
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]+)\s*", text)
        if match:
            number, unit = float(match[1]), match[2].lower()
            singular = unit[:-1] if len(unit) > 1 and unit.endswith("s") else unit
            if singular in _SECONDS:
                return cls(seconds=number * _SECONDS[singular])
            for name, field in (("step", "steps"), ("token", "tokens"), ("tok", "tokens")):
                scale = singular.removesuffix(name)
                if singular.endswith(name) and scale in _SCALES:
                    return cls(**{field: round(number * _SCALES[scale])})
        raise ValueError(
            f"a budget is a number with a unit: 60s, 2m, 1h (training time), 500steps, 200ktok, 1Mtok; "
            f"got {text!r}"
        )

    def fraction(self, steps: int, tokens: int, seconds: float) -> float:
        """The part of the budget that is spent, 1 or more where it is used up."""
        if self.seconds is not None:
            return seconds / self.seconds
        return steps / self.steps if self.steps is not None else tokens / (self.tokens or 1)

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds:g} s"
        return f"{self.steps:,} steps" if self.steps is not None else f"{self.tokens:,} tokens"


class LowRankSettings(BaseModel):
    """Corrections of low rank to some linear maps, which train in the place of all weights.

    Hu et al. 2021, arXiv 2106.09685. ``on`` names the maps, by the ends of their names. ``also`` names
    modules that train whole beside them: the embedding, where texts hold tokens that the model has never
    seen, because no correction elsewhere tells one row of it that was never trained from another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rank: int = Field(ge=1)
    alpha: float | None = Field(
        default=None, gt=0, description="corrections are multiplied by alpha / rank; None takes the rank"
    )
    on: tuple[str, ...] = Field(default=("in_proj", "out_proj"), min_length=1)
    also: tuple[str, ...] = ()

    @field_validator("on", "also", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(filter(None, value.replace(" ", "").split(","))) if isinstance(value, str) else value


class TrainSettings(BaseModel):
    """How a model is trained. Every field has a default; a budget may be given in words.

    The learning rate rises over the ``warmup`` part of the budget and falls along half a cosine to
    ``final_lr`` times its peak (Loshchilov, Hutter 2017, arXiv 1608.03983, equation 5).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    budget: Budget = Budget(seconds=60)
    batch_size: int = Field(default=32, ge=1, description="rows of one forward pass on one device")
    accumulate: int = Field(default=1, ge=1, description="forward passes that one optimizer step averages")
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the whole gradient")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="part of the budget")
    final_lr: float = Field(default=0.1, ge=0, le=1, description="part of the peak")
    validations: int = Field(default=10, ge=1, description="validations, spread evenly over the budget")
    valid_batches: int | None = Field(
        default=None,
        ge=1,
        description="batches of one validation, their rows spread evenly over the set; None takes all",
    )
    patience: int | None = Field(default=None, ge=1, description="validations without gain before stopping")
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    devices: int = Field(default=1, ge=1, description="devices on each machine")
    nodes: int = Field(default=1, ge=1, description="machines")
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    compile: bool = False
    workers: int = Field(
        default=0, ge=0, description="processes that load data; 0 loads in the trainer's own"
    )
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=10, ge=1, description="steps between two lines of metrics.jsonl")
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    checkpoint_steps: int | None = Field(default=None, ge=1)
    progress: bool = False
    lora: LowRankSettings | None = Field(default=None, description="None trains all weights")

    @model_validator(mode="after")
    def _whole(self) -> "TrainSettings":
        if self.lora is not None and self.strategy == "fsdp":
            raise ValueError(
                "corrections of low rank are small, so they are not sharded: leave out strategy fsdp, or lora"
            )
        return self

    @field_validator("budget", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        return Budget.parse(value) if isinstance(value, str) else value
