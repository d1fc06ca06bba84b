"""What a trained forecaster remembers of its look-back, on windows of its own test data."""

from typing import TYPE_CHECKING, Any, NamedTuple

from hippodrome.cli._spent import Sequences

if TYPE_CHECKING:
    from hippodrome.analyze.charts import Chart

SAMPLE = 64
"""Test windows over which the influence is taken, spread evenly."""


class Look(NamedTuple):
    """What was found, and the picture."""

    facts: dict[str, Any]
    chart: "Chart"


def look(given: Sequences) -> Look:
    """Influence of each past step on the forecasts of windows all over the test part, and on one of them."""
    from hippodrome.analyze.look_back import look_back_chart, look_back_memory

    count = len(given.task.test)  # type: ignore[arg-type]
    rows = sorted({round(i * (count - 1) / max(SAMPLE - 1, 1)) for i in range(SAMPLE)})
    found = look_back_memory(given.run.model, given.batch(rows))
    one = look_back_memory(given.run.model, given.batch([given.number]))
    facts = {
        "look_back": len(found.whole),
        "reach": found.reach,
        "share": found.share,
        "windows": found.windows,
        "reach_of_this": one.reach,
        "influence": list(found.whole),
    }
    return Look(facts, look_back_chart(found, one, given.number + 1))


def without_backbone(model: Any) -> dict[str, Any]:
    """Of a linear forecaster: its parameters and arithmetic, a token being a step of the look-back."""
    import torch

    from hippodrome.analyze.cost import count_flops, parameter_count

    past = torch.zeros(1, model.look_back, model.channels, device=next(model.parameters()).device)
    with torch.no_grad():
        flops, uncounted = count_flops(lambda: model(past))
    found = parameter_count(model)
    nothing: dict[str, Any] = {"state_bytes": None, "bytes_per_token": None, "memory_tokens": None}
    return {
        "parameters": found,
        "active_parameters": found,
        "flops_per_token": flops / model.look_back,
        "uncounted": list(uncounted),
        "spectrum": {},
        "systems": {},
        **nothing,
    }


def shown(facts: dict[str, Any]) -> dict[str, str]:
    """The same as lines of a table."""
    if not facts:
        return {}
    told = (
        f"{facts['reach']} of {facts['look_back']} (over {facts['windows']} windows; in this one "
        f"{facts['reach_of_this']})"
    )
    return {f"steps that hold {round(100 * facts['share'])} % of the influence on forecasts": told}
