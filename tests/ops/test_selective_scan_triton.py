"""The selective scan in Triton: the contract where kernels run, any state size, segments, compiling."""

from functools import partial

import pytest
import test_selective_scan as scan
import torch

from hippodrome.ops.selective_scan import selective_scan, triton_
from hippodrome.ops.selective_scan.examples import inputs
from hippodrome.testing import triton_ as testing
from hippodrome.testing.ops import check_registration, check_resets

runs = pytest.mark.skipif(
    testing.device() is None, reason="Triton has neither a GPU here nor its interpreter turned on"
)
MORE = (check_registration, check_resets)


@pytest.mark.triton
@runs
def test_contract():
    testing.check_triton(
        selective_scan,
        partial(inputs, softplus=True, d=3, n=3),
        along_time=("u", "dt", "B", "C", "z"),
        options={"softplus": True},
        lengths=(1, 21),
        more=MORE,
    )


@pytest.mark.triton
@runs
@pytest.mark.parametrize(
    "sizes", [{"n": 1}, {"n": 16, "d": 20}, {"n": 5, "g": 2}, {"n": 130, "d": 2}, {"n": 300, "d": 1}], ids=str
)
def test_any_state_size_and_groups(sizes):
    examples = partial(inputs, b=1, softplus=False, **sizes)
    testing.check_values(selective_scan, examples, options={"softplus": False}, lengths=(11,))


@pytest.mark.triton
@runs
@pytest.mark.parametrize("constant", ["B", "BC"])
def test_vectors_that_are_constant_in_time(constant):
    examples = partial(inputs, b=1, d=4, n=3, constant=constant, softplus=True)
    testing.check_values(selective_scan, examples, options={"softplus": True}, lengths=(11,))


@pytest.mark.triton
@runs
def test_fixtures_computed_apart():
    with torch.device(testing.device()):
        scan.test_halving_gives_the_geometric_series("triton", 3.0)
        scan.test_numbers_of_a_scan_of_sines("triton", True)


@pytest.mark.triton
@runs
def test_segments_of_time():
    # One row of few channels is cut into segments; the interpreter counts the processors of a large GPU.
    examples = partial(inputs, b=1, d=2, n=1, softplus=True)
    u, _, A, B = examples(t=130)[:4]
    assert triton_.plan(u, A, B).segments == 2
    testing.check_values(selective_scan, examples, options={"softplus": True}, lengths=(130,))


@pytest.mark.triton
@runs
def test_many_channels_are_not_cut_in_time():
    u, A, B = torch.empty(16, 2048, 1536, device="meta"), torch.empty(1536, 16), torch.empty(16, 2048, 16)
    assert triton_.plan(u, A, B).segments == 1


@pytest.mark.triton
@pytest.mark.skipif(
    testing.device() is None or testing.device().type != "cuda", reason="needs a GPU: there is none here"
)
@pytest.mark.parametrize(
    "sizes", [(1, 4096, 1536, 16), (8, 500, 768, 16), (1, 20_000, 64, 32), (2, 1000, 96, 64, 3)], ids=str
)
def test_large_shapes_on_a_gpu(sizes):
    arguments = inputs(*sizes, dtype=torch.float32, softplus=True)
    testing.check_long(
        selective_scan, [x if x is None else x.cuda() for x in arguments], options={"softplus": True}
    )


@pytest.mark.cubin
@pytest.mark.skipif(not testing.can_compile(), reason="Triton is not installed, or set to interpret kernels")
@pytest.mark.parametrize(
    ("sizes", "dtype", "capabilities"),
    [
        ((1, 256, 1536, 16), torch.float32, (80, 90, 100)),
        ((1, 64, 48, 5, 3), torch.bfloat16, (90,)),
        ((1, 64, 8, 300), torch.float64, (80,)),
    ],
    ids=["mamba", "bfloat16-groups", "float64-large-state"],
)
def test_compiles_for_every_architecture(sizes, dtype, capabilities):
    def call():
        arguments = inputs(*sizes, dtype=torch.float32)
        half = [
            x if x is None or not x.is_floating_point() else x.to(dtype).requires_grad_() for x in arguments
        ]
        y, last = triton_.selective_scan(*half, softplus=True)
        (y.sum() + last.sum()).backward()

    built = testing.check_compiles(call, capabilities)
    assert {cubin.kernel for cubin in built} >= {"forward", "retrace", "backward"}
    if dtype == torch.float32:
        assert {cubin.kernel for cubin in built} >= {"aggregate"}
        # The backward kernel keeps about two hundred numbers for each thread, and leaves a few in memory.
        assert all(cubin.spilled <= (256 if cubin.kernel == "backward" else 64) for cubin in built), [
            cubin[:-1] for cubin in built
        ]
