"""SS2D: a selective state space over the points of a grid, read in four orders at once."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._grid import GridMixer, check_grid, over_grid
from hippodrome.layers.projection import Projection
from hippodrome.layers.step_size import initial_step_bias
from hippodrome.mixers.base import ParameterGroup
from hippodrome.ops.scan_order import ScanTable, merge, scan, scan_table
from hippodrome.ops.selective_scan import selective_scan


class SS2D(GridMixer):
    """[x | z] = in_proj(u); x = silu(conv(x)); along each order k a selective scan y_k of x, with dt, B and C
    of its own from x; out_proj(norm(sum_k y_k) silu(z)), the sum point by point.

    Liu, Tian, Zhao, Yu, Xie, Wang, Ye, Liu 2024, "VMamba: visual state space model", arXiv 2401.10166. With
    "cross" every point is read four times: by rows, by columns, and both from the end. With "atrous" the grid
    is cut into four that skip every second point, and every point is read once, which is ES2D of Pei, Huang,
    Xu 2024, "EfficientVMamba", arXiv 2403.09977. Any other list of orders has a system for each. Parameters
    carry the names and shapes of the authors' checkpoints.

    VMamba's later form is ``d_state=1, gated=False, conv_bias=False``, with ``expand`` 1 or 2.

    Args:
        d_model: channels in and out.
        sizes: rows and columns of the grid; their product is the number of tokens.
        d_state: n, size of each channel's state.
        expand: channels of the recurrence as a multiple of d_model.
        orders: names of ``ops.scan_order``: a set ("cross", "atrous", "diagonals", "snakes") or single ones.
        taps: of the depthwise convolution along each axis, an odd number.
        dt_rank: rank of the maps to the step sizes; None takes d / 16, rounded up.
        gated: whether silu(z) multiplies what is read.
        conv_bias: whether the convolution has one.
        dt_min: smallest step size at the start.
        dt_max: largest step size at the start.
        dt_floor: bound below the first step sizes.

    Raises:
        ValueError: a grid that is none, an order that there is not, or an even number of taps.
    """

    mixes_channels = True

    def __init__(
        self,
        d_model: int,
        sizes: list[int],
        d_state: int = 16,
        expand: int = 2,
        orders: list[str] | Literal["cross", "atrous", "diagonals", "snakes"] = "cross",
        taps: int = 3,
        dt_rank: int | None = None,
        gated: bool = True,
        conv_bias: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
    ) -> None:
        super().__init__()
        if taps < 1 or taps % 2 == 0:
            raise ValueError(
                f"SS2D's convolution reads as far to both sides, so its taps are odd; got {taps}. Take 3."
            )
        inner = expand * d_model
        rank = -(-d_model // 16) if dt_rank is None else dt_rank
        self.d_model, self.sizes = d_model, check_grid("SS2D", sizes)
        self.d_state, self.dt_rank, self.gated = d_state, rank, gated
        table = scan_table([orders] if isinstance(orders, str) else orders, sizes)
        self.register_buffer("order", table.order, persistent=False)
        self.register_buffer("inverse", table.inverse, persistent=False)
        k = table.order.shape[1]
        self.in_proj = Projection(d_model, (2 if gated else 1) * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, taps, padding=taps // 2, groups=inner, bias=conv_bias)
        self.x_proj_weight = nn.Parameter(_uniform(k, rank + 2 * d_state, inner, bound=inner**-0.5))
        self.dt_projs_weight = nn.Parameter(_uniform(k, inner, rank, bound=rank**-0.5))
        bias = initial_step_bias(k * inner, dt_min, dt_max, dt_floor)
        self.dt_projs_bias = nn.Parameter(bias.view(k, inner))
        self.A_logs = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(k * inner, 1))
        self.Ds = nn.Parameter(torch.ones(k * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = Projection(inner, d_model, bias=False)

    @property
    def table(self) -> ScanTable:
        """The orders and their inverse."""
        return ScanTable(self.get_buffer("order"), self.get_buffer("inverse"))

    def mixed(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The four scans in one call, each order a group of channels with B and C of its own."""
        x, *z = self.in_proj(x).chunk(2 if self.gated else 1, -1)
        x = F.silu(over_grid(self.conv2d, x, self.sizes))
        y = merge(self.scanned(scan(x, self.table)), self.table)
        y = self.out_norm(y)
        return self.out_proj(y * F.silu(z[0]) if z else y)

    def scanned(self, x: Float[Tensor, "b l k e"]) -> Float[Tensor, "b l k e"]:
        """Sequences side by side through the system of each."""
        small = torch.einsum("blke,kre->blkr", x, self.x_proj_weight.to(x.dtype))
        low, B, C = small.split([self.dt_rank, self.d_state, self.d_state], -1)
        dt = torch.einsum("blkr,ker->blke", low, self.dt_projs_weight.to(low.dtype))
        A = -torch.exp(self.A_logs.to(torch.promote_types(self.A_logs.dtype, torch.float32)))
        y, _ = selective_scan(
            x.flatten(2), dt.flatten(2), A, B, C, self.Ds, None, self.dt_projs_bias.flatten(), softplus=True
        )
        return y.unflatten(2, x.shape[2:])

    def parameter_groups(self) -> list[ParameterGroup]:
        """As Mamba's: A and the step sizes at 1e-3 at most; they and D without decay."""
        return [
            ParameterGroup([self.A_logs, self.dt_projs_bias], max_lr=1e-3, decay=False),
            ParameterGroup([self.Ds], decay=False),
        ]

    @classmethod
    def example(cls) -> "SS2D":
        """A small instance over a grid of 3 x 4 points."""
        return cls(6, [3, 4], d_state=3)


def _uniform(*shape: int, bound: float) -> Tensor:
    return torch.empty(*shape).uniform_(-bound, bound)
