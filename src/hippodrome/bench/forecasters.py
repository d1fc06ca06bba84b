"""A row of forecasters: training step and forecast beside models of neuralforecast, at three look-backs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from hippodrome.bench import rivals
from hippodrome.bench.measure import take_turns, timing
from hippodrome.bench.row import OURS, Ask, Row, Timing
from hippodrome.config import build, count_parameters, match_width, published, stack_spec
from hippodrome.models.base import Model
from hippodrome.shapes import SeriesBatch
from hippodrome.train.optimizer import adamw

SIZES = {"b": 32, "channels": 7, "horizon": 96}
TINY = {"b": 2, "channels": 2, "horizon": 4}
LOOK_BACKS = (96, 336, 512)
MIXERS = ("s4d", "lru", "min_gru", "mamba2")
DEPTH = 3
"""Layers of PatchTST, and of the models of ours that have as many parameters."""
SAME_SIZE: dict[str, dict[str, Any]] = {
    "patchtst": {"d_model": 128, "full_attention": {"heads": 16}, "mlp": {"d_hidden": 256}},
    "itransformer": {"d_model": 512, "mlp": {"d_hidden": 2048}},
    "dlinear": {},
}
"""What makes our recipes as large as the models of neuralforecast are by themselves."""

Call = Callable[[], None]


def at_their_size(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The spec of a recipe of ours at the sizes that neuralforecast's model of that name has by default."""
    recipe, wanted = published.find(name), SAME_SIZE[name]
    options = {kind: {**given, **wanted.get(kind, {})} for kind, given in recipe.model.options.items()}
    model = recipe.model.model_copy(update={"options": options})
    sized = recipe.model_copy(update={"model": model})
    made = published.spec_of(sized, "forecasting", facts, {}, wanted.get("d_model"))
    return {"kind": "forecasting", **facts, **made}


def of_mixer(name: str, facts: dict[str, Any], width: int) -> dict[str, Any]:
    """The spec of a forecaster over layers of one mixer."""
    backbone = stack_spec(name, width, DEPTH, options={}, dropout=0.1)
    return {"kind": "forecasting", **facts, "backbone": backbone}


def calls_of(model: Model, batch: SeriesBatch) -> tuple[Call, Call]:
    """A training step with our optimizer, and a forecast with nothing kept for a gradient."""
    optimizer = adamw(model, 1e-4, 0.0, (0.9, 0.999))

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()

    def forecast() -> None:
        model.eval()
        with torch.no_grad():
            model(batch.past)

    return step, forecast


def forecaster_rows(ask: Ask) -> list[Timing]:
    """All contenders at each look-back, training steps in turns and then forecasts in turns."""
    sizes, found = TINY if ask.tiny else SIZES, []
    for look_back in (32,) if ask.tiny else LOOK_BACKS:
        shape = {**sizes, "look_back": look_back}
        normal = ask.where.normal(1)
        past = normal(sizes["b"], look_back, sizes["channels"]).cumsum(1)
        batch = SeriesBatch(past, normal(sizes["b"], sizes["horizon"], sizes["channels"]))
        facts: dict[str, Any] = {"look_back": look_back, "quantiles": ()}
        facts |= {name: sizes[name] for name in ("channels", "horizon")}
        torch.manual_seed(0)
        specs = {name: at_their_size(name, facts) for name in SAME_SIZE}
        for name in MIXERS[:1] if ask.tiny else MIXERS:
            spec = partial(of_mixer, name, facts)
            specs[name] = spec(16 if ask.tiny else match_width(spec, count_parameters(specs["patchtst"]), 16))
        built: dict[str, nn.Module] = {f"{OURS}, {n}": build(spec) for n, spec in specs.items()}
        calls = {who: calls_of(model, batch) for who, model in built.items()}  # type: ignore[arg-type]
        if rivals.have("neuralforecast"):
            for name in rivals.NEURALFORECAST:
                calls[f"neuralforecast, {name}"] = rivals.neuralforecast(name, batch)
        for i, phase in enumerate(("training step", "forecast")):
            taken = take_turns({who: pair[i] for who, pair in calls.items()}, ask.pace)
            found += [timing(ask.row, phase, who, shape, ask.threads, each) for who, each in taken.items()]
    return found


ROWS = (
    Row(
        "forecasters",
        "model",
        "Forecasters beside those of neuralforecast",
        "32 windows of 7 variates, a horizon of 96, the point alone. A training step is the squared error, "
        "its gradient and an optimizer's step: AdamW in its fused form for ours, Adam as neuralforecast "
        "makes it for its own. PatchTST and iTransformer have neuralforecast's default sizes on both sides; "
        "the models of one mixer have three layers and about as many parameters as PatchTST.",
        measure=forecaster_rows,
        rivals=("neuralforecast",),
    ),
)
"""The row of forecasters."""
