"""The live table: rows that follow the events on a terminal, plain lines elsewhere."""

from io import StringIO

import pytest
from rich.console import Console

from hippodrome.race.live import LiveTable
from hippodrome.race.plan import Entry, RacePlan

PLAN = RacePlan(
    kind="language",
    task="t",
    data="x",
    settings={},
    batch_size=2,
    entries=[
        Entry(name=n, baseline=False, width=8, depth=1, parameters=10, rates=[1e-3], spec={})
        for n in ("a", "b")
    ],
)
A = {"contender": "a", "lr": 1e-3, "seed": 0}
B = {"contender": "b", "lr": 1e-3, "seed": 0}
HALF, END = {"step": 100, "tokens": 18000, "seconds": 6.0}, {"step": 200, "tokens": 36000, "seconds": 12.0}
EVENTS = [
    {"event": "plan", "text": "2 training runs, about 1 min"},
    {"event": "start", **A},
    {"event": "step", **A, "step": 50, "tokens": 9000, "seconds": 3.0, "loss": 2.5, "fraction": 0.25},
    {"event": "validation", **A, **HALF, "nats": 1.75, "fraction": 0.5},
    {"event": "validation", **A, **END, "nats": 1.8, "fraction": 1.0},
    {"event": "end", **A, **END, "status": "finished", "note": "", "valid": 1.74},
    {"event": "end", **B, **HALF, "status": "diverged", "note": "the loss was NaN", "valid": None},
]


def shown(terminal: bool, events: list[dict]) -> str:
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=140, highlight=False)
    with LiveTable(PLAN, "nats", console=console) as table:
        for event in events:
            table(event)
    return out.getvalue()


def test_plain_lines_where_nobody_watches() -> None:
    lines = shown(False, EVENTS).splitlines()
    assert lines == [
        "2 training runs, about 1 min",
        "a (lr 0.001, seed 0) starts",
        "a (lr 0.001, seed 0) 50 %, step 100: nats per token 1.750",
        "a (lr 0.001, seed 0) 100 %, step 200: nats per token 1.800",
        "a (lr 0.001, seed 0) finished, nats per token 1.740",
        "b (lr 0.001, seed 0) diverged: the loss was NaN",
    ]


@pytest.mark.parametrize(
    ("upto", "words"),
    [
        (2, ["waiting", "lr 0.001, seed 0"]),
        (3, ["50", "3k", "2.5000", "9 s"]),
        (5, ["1.800", "1.750"]),
        (7, ["finished", "diverged", "1.740"]),
    ],
)
def test_a_table_that_follows_on_a_terminal(upto: int, words: list[str]) -> None:
    text = shown(True, EVENTS[:upto])
    for word in ["contender", "tokens/s", "train loss", "valid nats per token", "left", *words]:
        assert word in text, word
