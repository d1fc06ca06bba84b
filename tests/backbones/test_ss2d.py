"""SS2D: four scans in one call against four calls, its matrix, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.backbones.ss2d import SS2D
from hippodrome.ops.scan_order import scan_table
from hippodrome.ops.selective_scan import selective_scan
from hippodrome.testing.mixers import assert_equal, check_noncausal, prepared

OPTIONS = [
    {},
    {"orders": "atrous"},
    {"orders": ["diagonal", "snake-back"]},
    {"d_state": 1, "gated": False, "conv_bias": False, "expand": 1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_it_keeps_what_is_left_of_the_contract(options):
    check_noncausal(SS2D(6, [3, 5], **{"d_state": 3, **options}), 15, packed=False)


@pytest.mark.parametrize("options", OPTIONS)
def test_one_call_of_groups_is_a_call_for_each_order(options):
    mixer = prepared(SS2D(6, [3, 5], **{"d_state": 3, **options}))
    x = torch.randn(2, 15, 6, dtype=torch.float64)
    inner = mixer.out_proj.in_features
    u, *z = mixer.in_proj(x).split(inner, -1)
    picture = u.transpose(1, 2).reshape(2, inner, 3, 5)
    u = F.silu(F.conv2d(picture, mixer.conv2d.weight, mixer.conv2d.bias, padding=1, groups=inner))
    u = u.flatten(2).transpose(1, 2)
    given = options.get("orders", "cross")
    order = scan_table([given] if isinstance(given, str) else given, [3, 5]).order
    y = torch.zeros(2, 15, inner, dtype=torch.float64)
    n = mixer.d_state
    for k in range(order.shape[1]):
        there = order[:, k] >= 0
        one = torch.where(there[:, None], u[:, order[:, k]], 0.0)
        low, B, C = (one @ mixer.x_proj_weight[k].T).split([mixer.dt_rank, n, n], -1)
        part = slice(k * inner, (k + 1) * inner)
        out, _ = selective_scan(
            one, low @ mixer.dt_projs_weight[k].T, -mixer.A_logs[part].exp(), B, C, mixer.Ds[part],
            dt_bias=mixer.dt_projs_bias[k], softplus=True, backend="reference",
        )  # fmt: skip
        y.index_add_(1, order[there, k], out[:, there])
    y = mixer.out_norm(y)
    assert_equal(mixer(x)[0], mixer.out_proj(y * F.silu(z[0]) if z else y), "SS2D against four scans")


def test_a_grid_turned_over_its_diagonal_is_read_the_same_with_the_orders_exchanged():
    mixer = prepared(SS2D(4, [3, 5], d_state=2))
    turned = prepared(SS2D(4, [5, 3], d_state=2))
    turned.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        turned.conv2d.weight.copy_(mixer.conv2d.weight.transpose(2, 3))
        swap = torch.tensor([1, 0, 3, 2])
        for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias"):
            getattr(turned, name).copy_(getattr(mixer, name)[swap])
        for name in ("A_logs", "Ds"):
            own = getattr(mixer, name)
            getattr(turned, name).copy_(own.unflatten(0, (4, -1))[swap].flatten(0, 1))
    x = torch.randn(2, 15, 4, dtype=torch.float64)
    over = x.unflatten(1, (3, 5)).transpose(1, 2).flatten(1, 2)
    expected = mixer(x)[0].unflatten(1, (3, 5)).transpose(1, 2).flatten(1, 2)
    assert_equal(turned(over)[0], expected, "the turned grid")


def test_atrous_reads_only_its_own_quarter_beyond_the_taps_of_the_convolution():
    mixer = prepared(SS2D(4, [4, 6], d_state=2, orders="atrous", taps=1))
    x = torch.randn(1, 24, 4, dtype=torch.float64)
    changed = x.clone()
    changed[:, 0] += 1.0
    differs = ((mixer(changed)[0] - mixer(x)[0]).abs().amax(-1)[0] > 1e-12).view(4, 6)
    assert differs[::2, ::2].all()
    assert differs.sum() == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sizes": [15]}, "rows, columns"),
        ({"sizes": [3, 5], "taps": 2}, "odd"),
        ({"sizes": [3, 5], "orders": ["zigzag"]}, "in one order or more"),
    ],
)
def test_what_it_is_not_made_of(options, said):
    with pytest.raises(ValueError, match=said):
        SS2D(4, **options)


def test_other_grids_are_refused():
    with pytest.raises(ValueError, match="3 x 4 = 12 tokens and no resets; got 11 tokens"):
        SS2D.example()(torch.zeros(1, 11, 6))


def test_on_the_meta_device_shapes_are_known():
    with torch.device("meta"):
        assert SS2D.example()(torch.empty(1, 12, 6))[0].shape == (1, 12, 6)


@pytest.mark.compiled
def test_it_compiles_as_one_graph():
    mixer, x = SS2D(6, [3, 5], d_state=3, orders="atrous"), torch.randn(2, 15, 6)
    compiled = torch.compile(mixer, fullgraph=True)
    y = compiled(x)[0]
    assert_equal(y, mixer(x)[0], "compiled against eager")
    y.square().sum().backward()
    found = mixer.in_proj.weight.grad.clone()
    mixer.zero_grad()
    mixer(x)[0].square().sum().backward()
    assert_equal(found, mixer.in_proj.weight.grad, "gradient of the compiled graph", 1e-4)
