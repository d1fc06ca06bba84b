"""A mixer over a grid: causal mixers that read its points in several orders, their outputs summed."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._grid import GridMixer, check_grid
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.ops.scan_order import ScanTable, merge, scan, scan_table


class Scan2D(GridMixer):
    """y = sum_k merge_k(f_k(scan_k(x))): each mixer f_k reads the points along an order of its own.

    The orders of Liu et al. 2024, "VMamba: visual state space model", arXiv 2401.10166, section 4.2, of Pei,
    Huang, Xu 2024, "EfficientVMamba", arXiv 2403.09977, and others, around any mixer; see ``ops.scan_order``.
    Where an odd grid has no point for a place of "atrous", its mixer reads zeros there and is not heard.

    Args:
        mixers: causal ones, all of one width: one for each sequence of the orders, or one for all.
        sizes: rows and columns of the grid; their product is the number of tokens.
        orders: names of ``ops.scan_order``. A set such as "cross" is four sequences.
        average: whether the sum at a point is divided by the number of sequences that read it.

    Raises:
        ValueError: as many mixers as there are sequences, or one, is not what came; a mixer that reads later
            tokens, widths that differ, a grid that is none, or the one order "raster", which is the mixer
            itself.
    """

    def __init__(
        self, mixers: list[Mixer], sizes: list[int], orders: list[str] | None = None, average: bool = False
    ) -> None:
        super().__init__()
        orders = ["cross"] if orders is None else list(orders)
        if orders == ["raster"]:
            raise ValueError(
                "Read by rows alone, a grid is a sequence as any: take the mixer itself, without Scan2D."
            )
        self.sizes = check_grid("Scan2D", sizes)
        table = scan_table(orders, sizes)
        sequences = table.order.shape[1]
        widths = {mixer.d_model for mixer in mixers}
        if len(mixers) not in (1, sequences) or len(widths) != 1:
            raise ValueError(
                f"{', '.join(orders)} takes one mixer, or one for each of its {sequences} sequences, all of "
                f"one width; got {len(mixers)} of widths {sorted(widths)}."
            )
        for mixer in mixers:
            if not mixer.causal or mixer.point_channels is not None:
                raise ValueError(
                    f"Along each order stands a causal mixer over single points; {type(mixer).__name__} "
                    "reads a grid, or both ways, already."
                )
        self.d_model, self.average = mixers[0].d_model, average
        self.mixers = nn.ModuleList(mixers)
        self.register_buffer("order", table.order, persistent=False)
        self.register_buffer("inverse", table.inverse, persistent=False)

    @property
    def out_proj(self) -> nn.Module:
        """The maps that write the output, which a stack scales by its depth."""
        own = (getattr(mixer, "out_proj", None) for mixer in self.mixers)
        return nn.ModuleList([one for one in own if isinstance(one, nn.Module)])

    def mixed(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Every sequence through its mixer, or all as rows of one batch through the one there is."""
        table = ScanTable(self.get_buffer("order"), self.get_buffer("inverse"))
        read = scan(x, table)
        sequences = read.shape[2]
        if len(self.mixers) == 1:
            rows = read.transpose(1, 2).flatten(0, 1)
            heard = self.mixers[0](rows)[0].unflatten(0, (-1, sequences)).transpose(1, 2)
        else:
            heard = torch.stack([mixer(read[:, :, k])[0] for k, mixer in enumerate(self.mixers)], 2)
        y = merge(heard.contiguous(), table)
        return y / table.inverse.shape[1] if self.average else y

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of all mixers."""
        return [group for mixer in self.mixers for group in mixer.parameter_groups()]  # type: ignore[operator]

    @classmethod
    def example(cls) -> "Scan2D":
        """A small instance over a grid of 3 x 4 points."""
        return cls([MinGRU(6) for _ in range(4)], [3, 4])
