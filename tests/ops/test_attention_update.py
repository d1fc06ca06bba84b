"""One token of attention: its definition, in every backend, dtype and layout, and what is refused."""

import copy
from functools import partial

import pytest
import torch

from hippodrome.ops.attention_update import BACKENDS, attention_update, examples
from hippodrome.testing._op_case import recording, slice_of_wider
from hippodrome.testing.ops import DOUBLE, HALF, SINGLE, close

NAMES = [backend.NAME for backend in BACKENDS]
CASES = {
    "grouped": (examples.inputs, {"heads": 4, "scale": 0.4}),
    "ring": (partial(examples.inputs, 3, 4, 1, 5, 2, pairs=0), {"heads": 2, "scale": 1.0, "ring": True}),
    "lanes": (partial(examples.inputs, 1, 40, 3, 32, 3, pairs=16), {"heads": 3, "scale": 0.2}),
}
all_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@all_cases
@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, DOUBLE), (torch.float32, SINGLE), (torch.bfloat16, HALF)]
)
def test_values(case, backend, dtype, tolerance):
    make, options = case
    arguments = make(dtype=dtype)
    if options.get("ring"):
        arguments[-1][:] = torch.tensor([0, 3, 9])
    expected = copy.deepcopy(arguments)
    y = attention_update(*arguments, **options, backend=backend)
    assert y.dtype == dtype
    close(y, attention_update(*expected, **options, backend="reference"), tolerance, "output")
    for name, x, other in zip(("k", "v"), arguments[2:4], expected[2:4], strict=True):
        close(x, other, tolerance, name)
    assert torch.equal(arguments[4], expected[4])


def test_queries_keys_and_values_of_a_wider_row():
    make, options = CASES["grouped"]
    arguments, expected = make(), make()
    y = attention_update(slice_of_wider(arguments[0]), *arguments[1:], **options)
    close(y, attention_update(*expected, **options, backend="reference"), DOUBLE, "output")


@pytest.mark.parametrize("backend", NAMES)
def test_a_full_cache_is_refused(backend):
    arguments = examples.inputs()
    arguments[-1][1] = 7
    with pytest.raises(ValueError, match="one token more comes"):
        attention_update(*arguments, heads=4, scale=1.0, backend=backend)


def test_what_does_not_fit_stops_at_the_door():
    qkv, frequencies, k, v, seen = examples.inputs()
    with pytest.raises(ValueError, match="take qkv of shape"):
        attention_update(qkv, frequencies, k, v, seen, heads=3, scale=1.0)
    with pytest.raises(ValueError, match="has no slot"):
        attention_update(qkv, frequencies, k[:, :0], v[:, :0], seen, heads=4, scale=1.0)


def test_nan_shows():
    for i in (0, 2, 3):
        arguments = examples.inputs(dtype=torch.float32)
        arguments[i][0].fill_(torch.nan)
        assert attention_update(*arguments, heads=4, scale=1.0)[0].isnan().all()


def test_registration():
    arguments = examples.inputs(dtype=torch.float32)
    with recording() as calls, torch.no_grad():
        attention_update(*arguments, heads=4, scale=1.0)
    assert list(calls) == ["hippodrome.attention_update.default"]
    for operator, given, keywords in calls.values():
        torch.library.opcheck(operator, given, keywords)
