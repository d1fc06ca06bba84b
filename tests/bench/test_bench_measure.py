"""How rows are measured: turns, answers compared first, quartiles, floors, units, what is left out."""

import pytest
import torch

from hippodrome.bench import run as runner
from hippodrome.bench.measure import disagreement, measure_row, middle, take_turns
from hippodrome.bench.row import Contender, Pace, Row, Where, leaves

QUICK = Pace(seconds=0, least=1)
CPU = torch.device("cpu")


def test_contenders_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    taken = take_turns(calls, Pace(seconds=0, least=2))
    assert order == list("ababab")  # one uncounted round first
    assert [len(times) for times in taken.values()] == [2, 2]


def test_a_contender_that_answers_differently_is_refused() -> None:
    x = torch.ones(3, requires_grad=True)
    ours = Contender("ours", lambda: 2 * x, [x])
    theirs = Contender("theirs", lambda: 3 * x, [x])
    floor = Contender("floor", lambda: 7 * x, [x], floor=True)
    assert disagreement([ours, theirs, floor]) == {"theirs": pytest.approx(0.5)}
    with pytest.raises(ValueError, match="theirs answers differently"):
        measure_row("row", {}, [ours, theirs], 1, QUICK)


def test_an_answer_that_is_no_number_is_refused() -> None:
    x = torch.ones(3)
    wrong = Contender("theirs", lambda: x * float("nan"))
    with pytest.raises(ValueError, match="theirs answers differently"):
        measure_row("row", {}, [Contender("ours", lambda: x), wrong], 1, QUICK)


def test_middle_is_median_and_quartiles() -> None:
    assert middle([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert middle([7.0]) == (7.0, 7.0, 7.0)


def test_a_floor_has_a_second_phase_of_its_own_and_units_divide() -> None:
    (x,) = leaves(torch.ones(4))
    called: list[str] = []
    ours = Contender("hippodrome", lambda: 2 * x, [x], units=4)
    floor = Contender("floor", lambda: x, floor=True, both=lambda: called.append("both"))
    other = Contender("no gradients", lambda: 2 * x.detach())
    found = measure_row("row", {"d": 4}, [ours, floor, other], 2, QUICK)
    phases = [(t.contender, t.phase) for t in found]
    assert phases == [
        ("hippodrome", "forward, per token"),
        ("floor", "forward"),
        ("no gradients", "forward"),
        ("hippodrome", "forward + backward, per token"),
        ("floor", "forward + backward"),
    ]
    assert called
    assert x.grad is None  # nothing is left behind
    assert [t.floor for t in found] == [False, True, False, False, True]


def row(name: str, build=None, **more) -> Row:
    """A row of a level of choice."""
    return Row(name, more.pop("level", "op"), name, "", [{}], {}, build, memory=False, **more)


def test_a_row_that_breaks_is_named_and_the_others_go_on() -> None:
    def good(where: Where) -> list[Contender]:
        return [Contender("hippodrome", lambda: where.normal()(2))]

    def bad(where: Where) -> list[Contender]:
        raise ValueError("no such thing")

    said: list[str] = []
    found = runner.run([row("bad", bad), row("good", good)], [1], QUICK, device=CPU, tell=said.append)
    assert found.failed == ["bad"]
    assert said == ["bad: failed in float32: no such thing"]
    assert {t.row for t in found.timings} == {"good"}


def test_what_is_not_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(where: Where) -> list[Contender]:
        return [Contender("hippodrome", lambda: where.normal()(2))]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(runner.rivals.PACKAGES, "rival", ("no_such_module", "pip install rival"))
    rows = [row("card", one, level="gpu"), row("narrow", one), row("beside", one, rivals=("rival",))]
    found = runner.run(rows, [1], QUICK, device=CPU, dtypes=["float32", "bfloat16"])
    assert found.notes["card"] == ["unmeasured: no CUDA device"]
    assert found.notes["narrow"] == ["unmeasured in bfloat16: the row is there in float32"]
    assert "rival is not installed, so it is left out (pip install rival)" in found.notes["beside"]
    assert {t.row for t in found.timings} == {"narrow", "beside"}
    assert not found.failed


def test_inputs_are_the_same_in_every_dtype() -> None:
    where = Where(CPU, torch.bfloat16)
    a, b = where.narrow(where.normal()(5), Where().normal()(5))
    assert a.dtype == torch.bfloat16
    assert torch.equal(a, b)
    assert where.word == "bfloat16"
