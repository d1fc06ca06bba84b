"""The spec of a forecasting model from the name of a mixer, pattern or recipe and what the data says."""

from collections.abc import Mapping
from typing import Any

from hippodrome.estimators.base import model_spec

COVARIATES = ("observed", "known", "static")
"""How many there are of each, which only the kind ``forecasting`` is told."""


def forecasting_spec(
    model: str, facts: Mapping[str, Any], width: int | None, depth: int | None, dropout: float | None
) -> dict[str, Any]:
    """What ``config.build`` makes a model of.

    ``facts`` are keyword arguments of ``ForecastingModel`` that only data and task know. A width, depth or
    dropout of None is the recipe's, or the usual one.

    Raises:
        ValueError: no mixer, pattern or recipe of this name, or covariates for a recipe that reads none.
    """
    _, made = model_spec(model, "forecasting", facts, {}, width, depth, dropout, {})
    if made.get("kind", "forecasting") != "forecasting":
        if any(facts.get(name) for name in COVARIATES):
            raise ValueError(
                f"the recipe {model} reads the series alone; got covariates. Leave them out, or take another "
                f"model"
            )
        facts = {name: value for name, value in facts.items() if name not in COVARIATES}
    return {"kind": "forecasting", **facts, **made}
