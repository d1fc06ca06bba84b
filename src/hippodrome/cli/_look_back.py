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


def shown(facts: dict[str, Any]) -> dict[str, str]:
    """The same as lines of a table."""
    if not facts:
        return {}
    told = (
        f"{facts['reach']} of {facts['look_back']} (over {facts['windows']} windows; in this one "
        f"{facts['reach_of_this']})"
    )
    return {f"steps that hold {round(100 * facts['share'])} % of the influence on forecasts": told}
