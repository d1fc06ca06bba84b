"""What a model's operators chose, and why nothing that comes before: read off the doors as called."""

import torch

from hippodrome.bench.explain import Use, lines, uses
from hippodrome.config import build, stack_spec
from hippodrome.ops.linear_scan import BACKENDS

CPU = torch.device("cpu")


def body(pattern: str):
    """A small stack."""
    return build(stack_spec(pattern, 16), "backbones")


def test_every_door_is_counted_with_what_refused_before_it() -> None:
    found = {(use.phase, use.op): use for use in uses(body("min_gru+min_gru"), 8, CPU)}
    use = found["forward", "linear_scan"]
    names = [backend.NAME for backend in BACKENDS]
    assert use.calls == 2
    assert use.backends == tuple(names)
    assert [name for name, _ in use.refusals] == names[: names.index(use.backend)]
    assert all(sentence for _, sentence in use.refusals)


def test_a_cell_says_why() -> None:
    common = ("forward", "ssd", "torch", 3)
    names = ("numba", "torch", "reference")
    refused = Use(*common, (("numba", "it takes no float64."),), False, names)
    assert refused.why() == "numba: it takes no float64."
    assert Use(*common, (), True, names).why() == "the caller names this backend"
    assert Use(*common, (), False, ("torch", "reference")).why() == "the operator has no compiled backend"
    assert Use("step", "ssd", "numba", 1, (), False, names).why() == ""
    assert list(lines([refused])) == [["forward", "ssd", "torch", "3", "numba: it takes no float64."]]


def test_float64_is_refused_in_a_sentence() -> None:
    from hippodrome.ops._door import watching
    from hippodrome.ops.linear_scan import linear_scan

    x = torch.ones(1, 4, 2)
    with watching() as choices:
        linear_scan(x, x, backend="torch")
    (choice,) = choices
    assert choice.forced
    assert (choice.op, choice.backend) == ("linear_scan", "torch")
    with watching() as choices:
        pass
    linear_scan(x, x)
    assert choices == []


def test_what_calls_no_door_is_not_there() -> None:
    assert all(use.op != "ssd" for use in uses(body("attention"), 8, CPU))
