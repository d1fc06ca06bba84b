"""Tapes: noted kernels run again as they ran, and each operation of PyTorch has a form that does the same."""

import multiprocessing
import threading

import numpy as np
import pytest
import torch
from tests.ops._taped_kernel import doubled, refusing

from hippodrome.ops import _threads
from hippodrome.ops._elementwise import FORMS, Unheld
from hippodrome.ops._tape import SOLO, Tape

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["team", "pool"])
def threads_of(request, monkeypatch):
    """PyTorch's team, and the pool that a forked process falls back on."""
    if request.param == "pool":
        monkeypatch.setattr(_threads, "_PROCESS", -1)
    return request.param


def chain(length: int, calls: int, count: int = SOLO) -> tuple[Tape, np.ndarray]:
    """A tape that doubles each number into the next row, row by row, and the rows."""
    rows = np.zeros((calls + 1, length), np.float32)
    rows[0] = np.arange(length)
    tape = Tape()
    for i in range(calls):
        arguments = (rows[i], rows[i + 1])
        doubled(0, 0, *arguments)
        tape.note(doubled, length, count, arguments)
    tape.close()
    return tape, rows


@pytest.mark.parametrize("count", [SOLO, 1])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_calls_run_in_order_each_over_all_tiles(threads_of, threads, count):
    torch.set_num_threads(threads)
    tape, rows = chain(1001, 8, count)
    for _ in range(20):
        rows[1:] = 0
        tape.replay()
        assert (rows[-1] == 2.0**8 * np.arange(1001)).all()


def test_functions_run_between_kernels():
    rows = np.ones((3, 4), np.float32)
    tape = Tape()
    doubled(0, 0, rows[0], rows[1])
    tape.note(doubled, 4, SOLO, (rows[0], rows[1]))
    tape.call(lambda: rows[1].__iadd__(1))
    tape.note(doubled, 4, SOLO, (rows[1], rows[2]))
    tape.close()
    tape.replay()
    assert (rows[2] == 6).all()


def test_a_kernel_that_fails_says_so():
    x = np.zeros(4, np.float32)
    tape = Tape()
    refusing(0, 0, x)
    tape.note(refusing, 4, SOLO, (x,))
    tape.close()
    with pytest.raises(ArithmeticError, match="call 0 of a tape failed"):
        tape.replay()


@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_runs_after_a_call_that_failed(threads):
    torch.set_num_threads(threads)
    rows = np.ones((3, 1001), np.float32)
    tape = Tape()
    first, second = (rows[0], rows[1]), (rows[1], rows[2])
    for kernel, arguments in ((doubled, first), (refusing, (rows[1],)), (doubled, second)):
        kernel(0, 0, *arguments)
        tape.note(kernel, 1001, SOLO, arguments)
    tape.close()
    for _ in range(20):
        with pytest.raises(ArithmeticError, match="call 1 of a tape failed"):
            tape.replay()
    assert (rows[2] == 1).all()


def test_two_python_threads_replay_at_once(threads_of):
    tapes = [chain(3000, 8) for _ in range(3)]

    def often(tape, rows, wrong):
        for _ in range(50):
            rows[1:] = 0
            tape.replay()
            wrong += [not (rows[-1] == 2.0**8 * np.arange(3000)).all()]

    results: list[list[bool]] = [[] for _ in tapes]
    workers = [
        threading.Thread(target=often, args=(*tape, wrong))
        for tape, wrong in zip(tapes, results, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [len(wrong) for wrong in results] == [50] * 3
    assert not any(any(wrong) for wrong in results)


def in_a_fork(queue):
    tape, rows = chain(1001, 8)
    tape.replay()
    queue.put(bool((rows[-1] == 2.0**8 * np.arange(1001)).all()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_forked_process_replays_after_its_parent():
    chain(1001, 2)[0].replay()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=in_a_fork, args=(queue,))
    worker.start()
    assert queue.get(timeout=60)
    worker.join(60)


def test_what_no_word_holds_is_refused():
    tape = Tape()
    tape.note(doubled, 1, SOLO, (np.zeros((2, 2), np.float32), np.zeros(1, np.float32)))
    with pytest.raises(KeyError):
        tape.close()


CASES = [
    (aten.add.Tensor, 2, {"alpha": 0.5}),
    (aten.sub.Tensor, 2, {"alpha": 0.5}),
    (aten.mul.Tensor, 2, {}),
    (aten.div.Tensor, 2, {}),
    (aten.minimum.default, 2, {}),
    (aten.maximum.default, 2, {}),
    *(
        (getattr(aten, name).default, 1, {})
        for name in ("neg", "square", "exp", "sigmoid", "silu", "tanh", "relu", "softplus", "clone", "gelu")
    ),
    (aten.gelu.default, 1, {"approximate": "tanh"}),
    (aten.clamp.default, 1, {"min": -0.5, "max": 0.75}),
]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 1e-2}


def laid(kind: str, dtype: torch.dtype, seed: int) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(3, 600, 2, generator=numbers, dtype=torch.float64).to(dtype)
    return {"dense": x[:, :, 0].contiguous(), "strided": x[:, :, 1], "row": x[:1, :, 0]}[kind]


def replayed(form, *arguments, **named):
    """What the tape makes of new numbers in the same memory, beside what PyTorch makes of them."""
    tape = Tape()
    func, *operands = arguments
    y = form(tape, func, *operands, **named)
    tape.close()
    tensors = [x for x in operands if isinstance(x, torch.Tensor)]
    for i, x in enumerate(tensors):
        x.copy_(laid("dense", x.dtype, 10 + i)[: x.shape[0]])
    tape.replay()
    return y, func(*operands, **named)


@pytest.mark.parametrize("lay", ["dense", "strided"])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("func", "count", "named"), CASES, ids=lambda x: str(x))
def test_a_form_does_what_the_operation_does(func, count, named, dtype, lay):
    operands = [laid(lay, dtype, 0), laid("row", dtype, 1)][:count]
    found, expected = replayed(FORMS[func], func, *operands, **named)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_numbers_and_other_dtypes():
    x = laid("dense", torch.float32, 0)
    for func, second in ((aten.mul.Tensor, 3.0), (aten.add.Tensor, -1.5), (aten.sub.Tensor, 0.5)):
        found, expected = replayed(FORMS[func], func, x, second)
        torch.testing.assert_close(found, expected)
    half = laid("dense", torch.bfloat16, 0)
    found, expected = replayed(FORMS[aten.add.Tensor], aten.add.Tensor, half, x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_nan_comes_through():
    for func, count, named in CASES:
        x = torch.full((1, 20), torch.nan)
        tape = Tape()
        y = FORMS[func](tape, func, *[x, torch.zeros(1, 20)][:count], **named)
        tape.close()
        y.zero_()
        tape.replay()
        assert y.isnan().all(), func


def test_parts_side_by_side_and_rows_of_a_table():
    a, b = laid("dense", torch.float32, 0), laid("strided", torch.float32, 1)
    tape = Tape()
    joined = FORMS[aten.cat.default](tape, aten.cat.default, [a, b], 1)
    stacked = FORMS[aten.stack.default](tape, aten.stack.default, [a, b], 1)
    ids, table = torch.tensor([3, 0]), torch.randn(5, 37)
    rows = FORMS[aten.embedding.default](tape, aten.embedding.default, table, ids)
    tape.close()
    a += 1
    ids.copy_(torch.tensor([1, 4]))
    tape.replay()
    assert torch.equal(joined, torch.cat([a, b], 1))
    assert torch.equal(stacked, torch.stack([a, b], 1))
    assert torch.equal(rows, table[ids])


def test_what_has_no_form_is_refused_by_name():
    x = torch.zeros(2, 3, dtype=torch.complex64)
    with pytest.raises(Unheld, match=r"mul on numbers of torch\.complex64 has no form on a tape"):
        FORMS[aten.mul.Tensor](Tape(), aten.mul.Tensor, x, x)
