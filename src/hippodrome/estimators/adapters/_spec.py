"""The spec of a forecasting model from the name of a mixer, pattern or recipe and what the data says."""

from collections.abc import Mapping
from typing import Any

from hippodrome.config import published, stack_spec, variates, with_sizes

WIDTH, DEPTH = 64, 2
"""What a pattern is built with where nothing else is said."""

COVARIATES = ("observed", "known", "static")
"""How many there are of each, which only the kind ``forecasting`` is told."""


def forecasting_spec(
    model: str, facts: Mapping[str, Any], width: int | None, depth: int | None, dropout: float
) -> dict[str, Any]:
    """What ``config.build`` makes a model of.

    ``facts`` are keyword arguments of ``ForecastingModel`` that only data and task know. A recipe has its own
    width, depth and dropout: the first two count where they are None.

    Raises:
        ValueError: no mixer, pattern or recipe of this name, or covariates for a recipe that reads none.
    """
    if model in published.names():
        made = published.spec_of(published.find(model), "forecasting", facts, {}, width, depth)
    else:
        options = with_sizes(model, None, None, variates("forecasting", facts))
        made = {
            "backbone": stack_spec(model, width or WIDTH, depth or DEPTH, options=options, dropout=dropout)
        }
    if made.get("kind", "forecasting") != "forecasting":
        if any(facts.get(name) for name in COVARIATES):
            raise ValueError(
                f"the recipe {model} reads the series alone; got covariates. Leave them out, or take another "
                f"model"
            )
        facts = {name: value for name, value in facts.items() if name not in COVARIATES}
    return {"kind": "forecasting", **facts, **made}
