"""A pyramid: stacks over a grid that is halved between them, each wider than the one before."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._grid import check_grid, over_grid
from hippodrome.backbones._whole import WholeRows
from hippodrome.backbones.block import Block
from hippodrome.backbones.ss2d import SS2D
from hippodrome.backbones.stack import Stack
from hippodrome.layers.norm import NormKind, build_norm
from hippodrome.layers.projection import Projection
from hippodrome.mixers.base import ParameterGroup, check_word

BARE = ("inverted_residual",)
"""Kinds of mixers whose published block has no norm in front: they hold their own."""


class PatchMerging(nn.Module):
    """Four neighbours side by side, a norm and a linear map: the patch merging of Liu et al. 2021, "Swin
    Transformer", arXiv 2103.14030, section 3.1."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * d_in)
        self.reduction = Projection(4 * d_in, d_out, bias=False)

    def forward(self, x: Tensor, sizes: list[int]) -> Tensor:
        rows, columns = sizes
        grid = F.pad(x.unflatten(1, sizes), (0, 0, 0, columns % 2, 0, rows % 2))
        parts = [grid[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1).flatten(1, 2)))


class _Convolved(nn.Module):
    """A 3 x 3 convolution of every second point, and a norm: the downsampling of VMamba's later form."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d_in, d_out, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(d_out)

    def forward(self, x: Tensor, sizes: list[int]) -> Tensor:
        return self.norm(over_grid(self.conv, x, sizes))


_HALVED = {"patches": PatchMerging, "convs": _Convolved}


class Pyramid(WholeRows):
    """stage_1 over the grid, a step down to half its rows and columns, stage_2, and so on; then a norm.

    The hierarchy of Liu et al. 2021, "Swin Transformer", arXiv 2103.14030, which VMamba (arXiv 2401.10166)
    and EfficientVMamba (arXiv 2403.09977) keep. Its output has fewer tokens than its input, (b, t', d_out)
    with t' the points of the last grid: it is for models that read a grid as a whole.

    Args:
        stages: one stack for each grid, without norms of their own at the end.
        sizes: rows and columns of the first grid; the next ones are half of it, rounded up.
        merge: how a grid is halved: "patches" (four neighbours, a linear map) or "convs" (3 x 3, stride 2).
        norm: the kind of the last norm.

    Raises:
        ValueError: no stages, a grid that is none, or an unknown way to halve it.
    """

    def __init__(
        self,
        stages: list[Stack],
        sizes: list[int],
        merge: Literal["patches", "convs"] = "patches",
        norm: NormKind = "layer",
    ) -> None:
        super().__init__()
        if not stages:
            raise ValueError("A pyramid has one stage at least; got none.")
        check_word("Pyramid", "way to halve a grid", merge, _HALVED)
        self.sizes = grids(check_grid("Pyramid", sizes), len(stages))
        self.whole = self.sizes[0]
        self.d_model, self.d_out = stages[0].d_model, stages[-1].d_model
        self.stages = nn.ModuleList(stages)
        widths = [stage.d_model for stage in stages]
        self.halves = nn.ModuleList(_HALVED[merge](one, other) for one, other in pairwise(widths))
        self.norm = build_norm(norm, self.d_out)

    def read(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t2 d2"]:
        """A grid (b, t, d) to the last one (b, t', d_out)."""
        for i, stage in enumerate(self.stages):
            x = self.halves[i - 1](x, self.sizes[i - 1]) if i else x
            x, _ = stage(x)
        return self.norm(x)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside."""
        stages: list[Any] = list(self.stages)
        return [group for stage in stages for group in stage.parameter_groups()]

    @classmethod
    def example(cls) -> "Pyramid":
        """A small instance over a grid of 3 x 5 points."""
        first = Stack([Block(SS2D(6, [3, 5], d_state=2))], norm=False)
        return cls([first, Stack([Block(SS2D(8, [2, 3], d_state=2))], norm=False)], [3, 5])


def grids(sizes: list[int], stages: int) -> list[list[int]]:
    """The grid of each stage."""
    return [[-(-side // 2**i) for side in sizes] for i in range(stages)]


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after ``pyramid:PATTERN:PATTERN..``, one pattern a stage, or one for all of them.

    ``options``: ``sizes`` (of the first grid), ``depths`` (layers of each stage; ``depth`` for each where it
    is left out), ``stages`` (how many where one pattern is for all and there are no ``depths``, 2),
    ``widths`` (of each stage as a multiple of d_model, [1, 2, 4, 8]), ``merge`` ("patches" or "convs") and
    ``norm`` (the last one's kind).
    Mixers that ask for ``sizes`` get those of their stage. A kind that holds its own norms stands without one
    in front.

    Raises:
        ValueError: an option that there is not, no sizes, or lists that are not one number a stage.
    """
    given: dict[str, Any] = dict.fromkeys(("depths", "stages", "widths"))
    given |= {"merge": "patches", "norm": "layer"}
    known = ["sizes", *given]
    for name in options:
        if name not in known:
            raise ValueError(f"pyramid has no option {name!r}; it knows {', '.join(map(repr, known))}.")
    if "sizes" not in options:
        raise ValueError("pyramid needs the rows and columns of its first grid: give sizes=[rows, columns].")
    given |= options
    count = len(given["depths"] or []) or given["stages"] or (len(stacks) if len(stacks) > 1 else 2)
    if len(stacks) not in (1, count):
        raise ValueError(
            f"pyramid takes one pattern, or one for each of its {count} stages; got {len(stacks)}."
        )
    widths = given["widths"] or [2**i for i in range(count)]
    depths = given["depths"] or [depth] * count
    if len(widths) != count:
        raise ValueError(f"pyramid's widths are one for each of its {count} stages; got {widths}.")
    stages = []
    for i, sizes in enumerate(grids(given["sizes"], count)):
        made = stacks[i if len(stacks) > 1 else 0](round(widths[i] * d_model), depths[i])
        for block in made["blocks"]:
            if "sizes" in block["mixer"]:
                block["mixer"] = {**block["mixer"], "sizes": sizes}
            if block["mixer"]["kind"] in BARE:
                block["norm"] = "none"
        stages.append({**made, "norm": False})
    return {"stages": stages, "sizes": given["sizes"], "merge": given["merge"], "norm": given["norm"]}
