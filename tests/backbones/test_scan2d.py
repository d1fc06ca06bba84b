"""Scan orders around any mixer: against the mixer on each sequence by hand, its matrix, and patterns."""

import pytest
import torch

from hippodrome import config
from hippodrome.backbones import MIXERS, SCANS
from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.backbones.scan2d import Scan2D
from hippodrome.mixers.gla import GatedLinearAttention
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.s4d import S4D
from hippodrome.ops.scan_order import SETS, scan_table
from hippodrome.testing.mixers import assert_equal, check_noncausal, prepared


@pytest.mark.parametrize(
    "orders", [["cross"], ["atrous"], ["diagonal", "snake-back"], ["raster", "raster-back"]]
)
@pytest.mark.parametrize("tied", [False, True])
def test_it_keeps_what_is_left_of_the_contract(orders, tied):
    count = 1 if tied else scan_table(orders, [3, 5]).order.shape[1]
    check_noncausal(Scan2D([MinGRU(6) for _ in range(count)], [3, 5], orders), 15, packed=False)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("order", ["cross", "atrous"])
def test_it_is_each_mixer_along_its_own_sequence(order, average):
    mixer = prepared(Scan2D([MinGRU(6) for _ in range(4)], [3, 5], [order], average))
    x = torch.randn(2, 15, 6, dtype=torch.float64)
    table = scan_table([order], [3, 5]).order
    y = torch.zeros(2, 15, 6, dtype=torch.float64)
    for k, inside in enumerate(mixer.mixers):
        there = table[:, k] >= 0
        read = torch.where(there[:, None], x[:, table[:, k]], 0.0)
        y.index_add_(1, table[there, k], inside(read)[0][:, there])
    assert_equal(mixer(x)[0], y / (4 if average and order == "cross" else 1), "Scan2D")


def test_one_mixer_along_all_orders_is_four_with_its_parameters():
    one = prepared(Scan2D([GatedLinearAttention.example()], [3, 4], ["snakes"]))
    four = Scan2D([GatedLinearAttention.example() for _ in range(4)], [3, 4], ["snakes"]).double()
    for mixer in four.mixers:
        mixer.load_state_dict(one.mixers[0].state_dict())
    x = torch.randn(2, 12, one.d_model, dtype=torch.float64)
    assert_equal(one(x)[0], four(x)[0], "tied mixers")


def test_the_matrix_of_a_linear_mixer_is_permuted_and_not_triangular():
    """With one kernel for all, M = sum_k P_k^T K P_k: symmetric, as every order is read both ways."""
    inside = S4D(4, gated=False)
    mixer = prepared(Scan2D([inside], [2, 3], ["cross"]))
    eye = torch.eye(6, dtype=torch.float64)[:, :, None].expand(6, 6, 4)
    matrix = mixer(eye)[0][..., 0].T
    kernel = mixer.mixers[0](eye)[0][..., 0].T
    order = scan_table(["cross"], [2, 3]).order
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for k in range(4):
        P = torch.eye(6, dtype=torch.float64)[order[:, k]]
        expected += P.T @ kernel @ P
    assert_equal(matrix, expected, "the matrix")
    assert torch.allclose(matrix, matrix.T)
    assert float(kernel.detach().triu(1).abs().max()) < 1e-12


def test_patterns_put_a_scan_in_front_of_any_mixer():
    assert set(SCANS) == set(SETS)
    assert "scan2d" in MIXERS
    assert config.parse_pattern("cross-mambax2+atrous-gla") == ("cross-mamba", "cross-mamba", "atrous-gla")
    assert config.option_kinds("pyramid:cross-mamba:bi-s4d") == ["pyramid", "scan2d", "mamba", "s4d"]
    options = config.with_sizes("cross-mamba+atrous-min_gru", {"mamba": {"d_state": 3}}, [3, 5])
    spec = config.stack_spec("cross-mamba+atrous-min_gru", 8, options=options)
    first, second = (block["mixer"] for block in spec["blocks"])
    assert first["orders"] == ["cross"]
    assert first["mixers"] == [{"kind": "mamba", "d_model": 8, "d_state": 3}] * 4
    assert second["mixers"] == [{"kind": "min_gru", "d_model": 8}] * 4
    assert [block["mlp"] is None for block in spec["blocks"]] == [True, False]
    stack = config.build(spec, "backbones")
    assert (stack.causal, stack.accepts_resets) == (False, False)
    assert stack(torch.randn(2, 15, 8))[0].shape == (2, 15, 8)
    options["scan2d"] |= {"shared": True, "average": True}
    spec = config.stack_spec("snakes-mamba", 8, options={k: options[k] for k in ("scan2d", "mamba")})
    assert len(spec["blocks"][0]["mixer"]["mixers"]) == 1
    with pytest.raises(ValueError, match=r"no mixer 'mambo'.*did you mean 'mamba"):
        config.parse_pattern("cross-mambo")
    with pytest.raises(ValueError, match="runs over a grid"):
        config.with_sizes("cross-mamba", None, None)


@pytest.mark.parametrize(
    ("mixers", "orders", "said"),
    [
        (1, ["raster"], "take the mixer itself"),
        (3, ["cross"], "one for each of its 4 sequences"),
        (2, ["spiral"], "in one order or more"),
    ],
)
def test_what_it_is_not_made_of(mixers, orders, said):
    with pytest.raises(ValueError, match=said):
        Scan2D([MinGRU(4) for _ in range(mixers)], [3, 5], orders)


def test_mixers_that_read_both_ways_already_are_refused():
    with pytest.raises(ValueError, match="Bidirectional reads a grid, or both ways"):
        Scan2D([Bidirectional.example()], [3, 5])
