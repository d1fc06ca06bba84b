"""The spec of a forecasting model from the name of a mixer, pattern or recipe and what the data says."""

from collections.abc import Mapping
from typing import Any

from hippodrome.config import published, stack_spec, variates, with_sizes

WIDTH, DEPTH = 64, 2
"""What a pattern is built with where nothing else is said."""


def forecasting_spec(
    model: str, facts: Mapping[str, Any], width: int | None, depth: int | None, dropout: float
) -> dict[str, Any]:
    """What ``config.build`` makes a model of.

    ``facts`` are keyword arguments of ``ForecastingModel`` that only data and task know. A recipe has its own
    width, depth and dropout: the first two count where they are None.

    Raises:
        ValueError: no mixer, pattern or recipe of this name.
    """
    if model in published.names():
        made = published.spec_of(published.find(model), "forecasting", facts, {}, width, depth)
    else:
        options = with_sizes(model, None, None, variates("forecasting", facts))
        made = {
            "backbone": stack_spec(model, width or WIDTH, depth or DEPTH, options=options, dropout=dropout)
        }
    return {"kind": "forecasting", **facts, **made}
