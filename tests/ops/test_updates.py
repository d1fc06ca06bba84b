"""One-token updates: each is its op on a sequence of one, with the state overwritten in place."""

import copy
import inspect
from functools import partial

import pytest
import torch

from hippodrome.ops.causal_conv import causal_conv
from hippodrome.ops.causal_conv_update import BACKENDS, causal_conv_update
from hippodrome.ops.causal_conv_update import examples as conv_examples
from hippodrome.ops.delta_rule import delta_rule
from hippodrome.ops.delta_rule_update import delta_rule_update
from hippodrome.ops.delta_rule_update import examples as delta_examples
from hippodrome.ops.gla import gla
from hippodrome.ops.gla_update import examples as gla_examples
from hippodrome.ops.gla_update import gla_update
from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.selective_scan_update import examples as scan_examples
from hippodrome.ops.selective_scan_update import selective_scan_update
from hippodrome.ops.ssd import ssd
from hippodrome.ops.ssd_update import examples as ssd_examples
from hippodrome.ops.ssd_update import ssd_update
from hippodrome.testing._op_case import recording, slice_of_wider, transposed
from hippodrome.testing.ops import DOUBLE, HALF, SINGLE, close

NAMES = [backend.NAME for backend in BACKENDS if backend.NAME != "triton"]


def conv_by_op(x, weight, bias, state, *, activation=None, backend):
    y, last = causal_conv(x[:, None], weight, bias, state, activation=activation, backend=backend)
    return y[:, 0], last


def scan_by_op(u, dt, A, B, C, D, z, bias, state, *, softplus, backend):
    u, dt, B, C, z = (None if x is None else x[:, None] for x in (u, dt, B, C, z))
    y, last = selective_scan(u, dt, A, B, C, D, z, bias, state, softplus=softplus, backend=backend)
    return y[:, 0], last


def ssd_by_op(x, dt, A, B, C, D, bias, state, *, softplus=False, low=0.0, high=torch.inf, backend):
    sizes = dt.double() if bias is None else dt.double() + bias.double()
    sizes = torch.logaddexp(sizes, torch.zeros_like(sizes)) if softplus else sizes
    sizes = sizes.clamp(low, high)
    y, last = ssd(x[:, None], sizes[:, None], A, B[:, None], C[:, None], D, state, backend=backend)
    return y[:, 0], last


def gla_by_op(q, k, v, log_decay, state, *, backend):
    arguments = (x[:, None] for x in (q, k, v, log_decay))
    y, last = gla(*arguments, state, backend=backend)
    return y[:, 0], last


def delta_by_op(q, k, v, beta, log_decay, state, *, backend):
    arguments = (None if x is None else x[:, None] for x in (q, k, v, beta, log_decay))
    y, last = delta_rule(*arguments, state, backend=backend)
    return y[:, 0], last


CASES = {
    "conv": (causal_conv_update, conv_by_op, conv_examples.inputs, {}),
    "conv-silu": (causal_conv_update, conv_by_op, conv_examples.inputs, {"activation": "silu"}),
    "conv-bare": (causal_conv_update, conv_by_op, partial(conv_examples.inputs, 1, 3, 2, bias=False), {}),
    "conv-one-tap": (causal_conv_update, conv_by_op, partial(conv_examples.inputs, 2, 32, 1), {}),
    "scan": (selective_scan_update, scan_by_op, scan_examples.inputs, {"softplus": True}),
    "scan-lanes": (
        selective_scan_update,
        scan_by_op,
        partial(scan_examples.inputs, 1, 32, 16),
        {"softplus": True},
    ),
    "scan-bare": (
        selective_scan_update,
        scan_by_op,
        partial(scan_examples.inputs, 2, 42, 37, 2, softplus=False, rest=False),
        {"softplus": False},
    ),
    "ssd": (ssd_update, ssd_by_op, ssd_examples.inputs, {}),
    "ssd-bounded": (
        ssd_update,
        ssd_by_op,
        partial(ssd_examples.inputs, 2, 6, 5, 40, 3),
        {"softplus": True, "low": 0.5, "high": 0.71},
    ),
    "ssd-bare": (ssd_update, ssd_by_op, partial(ssd_examples.inputs, 1, 2, 4, 16, 1, rest=False), {}),
    "gla": (gla_update, gla_by_op, gla_examples.inputs, {}),
    "gla-lanes": (gla_update, gla_by_op, partial(gla_examples.inputs, 2, 3, 21, 150), {}),
    "delta": (delta_rule_update, delta_by_op, delta_examples.inputs, {}),
    "delta-lanes": (delta_rule_update, delta_by_op, partial(delta_examples.inputs, 2, 3, 21, 150), {}),
    "delta-bare": (
        delta_rule_update,
        delta_by_op,
        partial(delta_examples.inputs, 1, 2, 16, 32, with_gate=False),
        {},
    ),
}
all_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def place_of(case):
    """Which argument is the state."""
    return len(case[2]()) - 1


@all_cases
@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, DOUBLE), (torch.float32, SINGLE), (torch.bfloat16, HALF)]
)
def test_an_update_is_the_op_at_one_step(case, backend, dtype, tolerance):
    update, by_op, examples, options = case
    arguments = examples(dtype=dtype)
    before = copy.deepcopy(arguments)
    expected, last = by_op(*arguments, **options, backend="reference")
    y = update(*arguments, **options, backend=backend)
    assert y.dtype == dtype
    close(y, expected, tolerance, f"{backend}: output")
    close(arguments[-1], last, tolerance, f"{backend}: state")
    for old, new in zip(before[:-1], arguments[:-1], strict=True):
        assert old is None or torch.equal(old, new)


@all_cases
@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("lay", [slice_of_wider, transposed])
def test_tensors_of_any_strides(case, backend, lay):
    update, _, examples, options = case
    plain, strided = examples(), tuple(lay(x) for x in examples())
    expected = update(*plain, **options, backend=backend)
    close(update(*strided, **options, backend=backend), expected, 1e-12, f"{backend}: output")
    close(strided[-1], plain[-1], 1e-12, f"{backend}: state")


@all_cases
def test_mixed_dtypes_keep_the_wide_state(case):
    update, _, examples, options = case
    plain, mixed = examples(dtype=torch.float32), list(examples(dtype=torch.float32))
    main = 2 if update in (gla_update, delta_rule_update) else 0
    mixed[main] = mixed[main].bfloat16()
    y = update(*mixed, **options)
    assert y.dtype == torch.bfloat16
    assert mixed[-1].dtype == torch.float32
    close(y, update(*plain, **options), HALF, "output")
    close(mixed[-1], plain[-1], HALF, "state")


@all_cases
def test_any_number_of_threads_gives_the_same_bits(case):
    update, _, examples, options = case
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            arguments = examples(dtype=torch.float32)
            seen.append((update(*arguments, **options), arguments[-1]))
    finally:
        torch.set_num_threads(before)
    for y, state in seen[1:]:
        assert torch.equal(y, seen[0][0])
        assert torch.equal(state, seen[0][1])


@all_cases
def test_nan_shows_in_the_output_or_the_state(case):
    update, _, examples, options = case
    for dtype in (torch.float32, torch.float64):
        for i in range(len(examples())):
            arguments = examples(dtype=dtype)
            if arguments[i] is not None and arguments[i].numel():
                arguments[i].view(-1)[0] = torch.nan
                y = update(*arguments, **options)
                assert y.isnan().any() or arguments[-1].isnan().any(), i


@all_cases
def test_registration(case):
    update, _, examples, options = case
    with recording() as calls:
        update(*examples(dtype=torch.float32), **options)
    assert len(calls) == 1
    for operator, arguments, keywords in calls.values():
        torch.library.opcheck(operator, arguments, keywords)


@all_cases
def test_a_gradient_is_not_lost_in_silence(case):
    update, _, examples, options = case
    arguments = list(examples(dtype=torch.float32))
    arguments[0].requires_grad_()
    with pytest.raises(ValueError, match="has no gradient"):
        update(*arguments, **options, backend="numba")


@all_cases
def test_wrong_shapes_stop_at_the_door(case):
    update, _, examples, options = case
    unchecked = inspect.unwrap(update)  # as users call it: without the shape checks of the test run
    for i in range(len(examples())):
        arguments = list(examples(dtype=torch.float32))
        if arguments[i] is not None and arguments[i].numel():
            arguments[i] = torch.cat([arguments[i], arguments[i]], -1)
            with pytest.raises(ValueError, match="must"):
                unchecked(*arguments, **options)


def test_a_changed_state_is_known_to_autograd():
    x, weight, bias, state = conv_examples.inputs(dtype=torch.float32)
    factor = torch.ones_like(state, requires_grad=True)
    product = (factor * state).sum()
    with torch.no_grad():
        causal_conv_update(x, weight, bias, state)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_large_states_are_shared_by_threads():
    for dtype, tolerance in ((torch.float64, DOUBLE), (torch.float32, SINGLE)):
        for update, by_op, examples, options in (
            (ssd_update, ssd_by_op, partial(ssd_examples.inputs, 6, 24, 64, 128, 1), {}),
            (gla_update, gla_by_op, partial(gla_examples.inputs, 8, 4, 128, 256), {}),
            (delta_rule_update, delta_by_op, partial(delta_examples.inputs, 22, 12, 64, 64), {}),
            (
                selective_scan_update,
                scan_by_op,
                partial(scan_examples.inputs, 44, 1536, 16),
                {"softplus": True},
            ),
        ):
            arguments = examples(dtype=dtype)
            expected, last = by_op(*arguments, **options, backend="torch")
            close(update(*arguments, **options, backend="numba"), expected, tolerance, "output")
            close(arguments[-1], last, tolerance, "state")


@all_cases
@torch.no_grad()
def test_an_update_called_past_the_dispatcher_is_the_op(case):
    update, _, examples, options = case
    seen, unseen = examples(dtype=torch.float32), examples(dtype=torch.float32)
    expected = update(*unseen, **options)
    with torch.autograd.profiler.profile() as profile:
        y = update(*seen, **options)
    assert torch.equal(y, expected)
    assert torch.equal(seen[-1], unseen[-1])
    assert any(event.name == f"hippodrome::{update.__name__}" for event in profile.function_events)
