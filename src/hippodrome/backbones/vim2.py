"""ViM2: a pyramid of MambaMixers, scans over a grid and scans along the channels of its points in turn."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._averages import Averages, order_of
from hippodrome.backbones._grid import check_grid
from hippodrome.backbones._whole import WholeRows
from hippodrome.backbones.mamba_mixer import parts
from hippodrome.backbones.pyramid import PatchMerging, grids
from hippodrome.backbones.ss2d import SS2D
from hippodrome.layers.norm import NormKind, build_norm
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.mixers.channel_scan import ChannelScan


class _Stage(nn.Module):
    """The mixers of one grid, each reading all earlier outputs of the stage weighed."""

    def __init__(self, tokens: list[Mixer], channels: list[Mixer], norm: NormKind, dropout: float) -> None:
        super().__init__()
        self.order = order_of(len(tokens), len(channels), "A stage of ViM2")
        self.tokens, self.channels = nn.ModuleList(tokens), nn.ModuleList(channels)
        self.norms = nn.ModuleList(build_norm(norm, tokens[0].d_model) for _ in self.order)
        self.dropout = nn.Dropout(dropout)
        self.averages = Averages(self.order)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        def layer(i: int, x: Tensor) -> Tensor:
            mixers = self.channels if self.order[i] else self.tokens
            y, _ = mixers[self.order[:i].count(self.order[i])](self.norms[i](x))
            return self.dropout(y)

        return self.averages(x, layer)


class ViM2(WholeRows):
    """Stages of token mixers over a grid and channel mixers over its points, the grid halved between them.

    Behrouz, Santacatterina, Zabih 2024, "MambaMixer: efficient selective state space models with dual token
    and channel selection", arXiv 2403.19888, section 4, the vision model. The paper's token mixer is
    VMamba's cross scan (``ss2d``); its channel mixer scans the channels, in a way of which the paper gives no
    sizes: ``channel_scan`` stands for it. Averages of earlier outputs stay within a stage. Between two stages
    four neighbours become one token (arXiv 2103.14030, section 3.1). A norm ends the last stage.

    Args:
        tokens: for each stage the mixers over its grid, of one width.
        channels: for each stage the mixers behind them, of the same width; at most as many, spread evenly.
        sizes: rows and columns of the first grid; the next ones are half of it, rounded up.
        norm: in front of every mixer and at the end, "rms" or "layer".
        dropout: chance that an element of an output is dropped in training.

    Raises:
        ValueError: no stage, not as many lists of both kinds, widths that differ within a stage, or more
            channel mixers than token mixers.
    """

    def __init__(
        self,
        tokens: list[list[Mixer]],
        channels: list[list[Mixer]],
        sizes: list[int],
        norm: NormKind = "layer",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        pairs = list(zip(tokens, channels, strict=False))
        widths = [sorted({mixer.d_model for mixer in (*t, *c)}) for t, c in pairs]
        if not tokens or len(tokens) != len(channels) or any(len(width) != 1 for width in widths):
            raise ValueError(
                f"ViM2 has token and channel mixers of one width for each stage; got {len(tokens)} and "
                f"{len(channels)} stages of widths {widths}."
            )
        self.sizes = grids(check_grid("ViM2", sizes), len(tokens))
        self.whole = self.sizes[0]
        self.stages = nn.ModuleList(_Stage(t, c, norm, dropout) for t, c in pairs)
        self.d_model, self.d_out = widths[0][0], widths[-1][0]
        self.halves = nn.ModuleList(PatchMerging(one[0], other[0]) for one, other in pairwise(widths))
        self.norm = build_norm(norm, self.d_out)

    def read(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t2 d2"]:
        """A grid (b, t, d) to the last one (b, t', d_out)."""
        for i, stage in enumerate(self.stages):
            x = stage(self.halves[i - 1](x, self.sizes[i - 1]) if i else x)
        return self.norm(x)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside; the weights of the averages without decay."""
        stages: list[Any] = list(self.stages)
        inside = [mixer for stage in stages for mixer in (*stage.tokens, *stage.channels)]
        weights = [weight for stage in stages for weight in stage.averages.parameters()]
        return [*(g for m in inside for g in m.parameter_groups()), ParameterGroup(weights, decay=False)]

    @classmethod
    def example(cls) -> "ViM2":
        """A small instance over a grid of 3 x 5 points."""
        torch.manual_seed(0)
        tokens: list[list[Mixer]] = [[SS2D(4, [3, 5], d_state=2)], [SS2D(6, [2, 3], d_state=2)]]
        return cls(tokens, [[ChannelScan(d, width=2, d_state=2)] for d in (4, 6)], [3, 5])


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after ``vim2:TOKENS:CHANNELS`` (``vim2:ss2d:channel_scan``), the same kinds in every stage.

    ``options``: ``sizes`` (of the first grid), ``depths`` (token mixers of each stage; two stages of
    ``depth`` where it is left out), ``every`` (token mixers to a channel mixer, 1) and ``widths`` (of each
    stage as a multiple of d_model, doubling). Mixers that ask for ``sizes`` get those of their stage.

    Raises:
        ValueError: not two patterns, an option that there is not, no sizes, or lists of different lengths.
    """
    known = ("sizes", "depths", "every", "widths")
    if len(stacks) != 2 or "sizes" not in options or not set(options) <= set(known):
        raise ValueError(
            f"vim2 takes a pattern of token mixers and one of channel mixers, sizes=[rows, columns] of its "
            f"first grid, and the options {', '.join(known[1:])}; got {len(stacks)} patterns and "
            f"{', '.join(map(repr, options)) or 'no options'}."
        )
    depths = options.get("depths") or [depth] * 2
    widths = options.get("widths") or [2**i for i in range(len(depths))]
    if len(widths) != len(depths):
        raise ValueError(f"vim2's widths and depths are one for each stage; got {widths} and {depths}.")
    found: dict[str, Any] = {"tokens": [], "channels": [], "sizes": list(options["sizes"])}
    for times, layers, sizes in zip(widths, depths, grids(options["sizes"], len(depths)), strict=True):
        tokens, common = parts(stacks[0](times * d_model, layers))
        channels, _ = parts(stacks[1](times * d_model, max(1, len(tokens) // options.get("every", 1))))
        found["tokens"].append([{**m, "sizes": sizes} if "sizes" in m else m for m in tokens])
        found["channels"].append(channels)
    return {**found, "norm": "layer", "dropout": common["dropout"]}
