"""Scan orders against tables written out by hand, and reading and putting back against each other."""

import pytest
import torch

from hippodrome.ops.scan_order import ORDERS, SETS, merge, scan, scan_table

SIZES = [(1, 1), (1, 5), (4, 1), (3, 4), (4, 4), (5, 3), (3, 5), (7, 2)]
BY_HAND = {
    ("cross", (2, 3)): [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]],
    ("atrous", (4, 4)): [[0, 2, 8, 10], [4, 12, 6, 14], [1, 3, 9, 11], [5, 13, 7, 15]],
    ("atrous", (3, 5)): [
        [0, 2, 4, 10, 12, 14],
        [5, -1, 7, -1, 9, -1],
        [1, 3, -1, 11, 13, -1],
        [6, -1, 8, -1, -1, -1],
    ],
    ("diagonal", (2, 3)): [[0, 1, 3, 2, 4, 5]],
    ("antidiagonal", (2, 3)): [[2, 1, 5, 0, 4, 3]],
    ("snake", (3, 3)): [[0, 1, 2, 5, 4, 3, 6, 7, 8]],
    ("snake-column", (2, 3)): [[0, 3, 4, 1, 2, 5]],
}


@pytest.mark.parametrize(("name", "sizes"), BY_HAND)
def test_orders_are_those_written_out_by_hand(name, sizes):
    assert scan_table([name], sizes).order.T.tolist() == BY_HAND[name, sizes]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", [*ORDERS, *SETS])
def test_putting_back_what_was_read_gives_as_many_times_the_input(name, sizes):
    table = scan_table([name], sizes)
    x = torch.randn(2, sizes[0] * sizes[1], 3, dtype=torch.float64)
    times = 1 if "atrous" in name else table.order.shape[1]
    assert torch.equal(merge(scan(x, table), table), times * x)


@pytest.mark.parametrize("name", ["cross", "atrous", "snake"])
def test_the_gradient_of_reading_is_putting_back_and_the_other_way_round(name):
    table = scan_table([name], (3, 5))
    x = torch.randn(2, 15, 2, dtype=torch.float64, requires_grad=True)
    y = scan(x, table)
    w = torch.randn_like(y, requires_grad=True)
    assert torch.equal(torch.autograd.grad(y, x, w)[0], merge(w, table))
    z = merge(w, table)
    v = torch.randn_like(z)
    assert torch.equal(torch.autograd.grad(z, w, v)[0], scan(v, table))
    assert torch.autograd.gradcheck(lambda x: scan(x, table), x)
    assert torch.autograd.gradgradcheck(lambda w: merge(w, table), w)


def test_a_table_on_the_meta_device_has_its_sizes():
    with torch.device("meta"):
        table = scan_table(["atrous"], (3, 5))
    assert (table.order.device.type, table.order.shape) == ("meta", (6, 4))


@pytest.mark.parametrize(
    ("orders", "sizes", "said"),
    [
        (["rastr"], (2, 2), "in one order or more of raster"),
        ([], (2, 2), "none"),
        (["raster"], (2, 0), "rows and columns"),
        (["raster"], (4,), "rows and columns"),
        (["raster", "atrous"], (4, 4), "one length"),
    ],
)
def test_orders_that_there_are_not(orders, sizes, said):
    with pytest.raises(ValueError, match=said):
        scan_table(orders, sizes)
