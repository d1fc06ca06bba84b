"""MambaMixer: mixers of tokens and mixers of channels in turn, each reading all earlier outputs weighed."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones._averages import Averages, order_of
from hippodrome.backbones._whole import WholeRows
from hippodrome.backbones.bidirectional import Bidirectional
from hippodrome.layers.norm import NormKind, build_norm
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.mixers.min_gru import MinGRU


class MambaMixer(WholeRows):
    """y_tok = token(norm(x_tok)), y_ch = channel(norm(x_ch)^T)^T, x_tok and x_ch weighted averages of all
    earlier outputs of both kinds; then a norm.

    Behrouz, Santacatterina, Zabih 2024, "MambaMixer: efficient selective state space models with dual token
    and channel selection", arXiv 2403.19888, section 3.2. A channel mixer runs along the channels, whose
    features are the tokens of the row: so a row has a fixed number of tokens and is read as a whole. The
    paper's mixers are Mamba along the tokens and Mamba both ways along the channels with one gate for both
    (``mamba_mixer:mamba:bimamba``; its gate is a perceptron of unknown depth, and here the one layer of
    Mamba); any mixer may stand for either. There are no residual branches and no perceptrons beside the
    mixers: see ``_averages`` for what takes their place.

    Args:
        tokens: mixers along the tokens, all of one width.
        channels: mixers along the channels, of the width that is the number of tokens; at most as many, and
            spread evenly behind those.
        sizes: tokens of a row as a grid of any number of axes; their product counts.
        norm: in front of every mixer and at the end, "rms" or "layer".
        dropout: chance that an element of an output is dropped in training.

    Raises:
        ValueError: no token mixer, more channel mixers than token mixers, or widths that do not fit.
    """

    def __init__(
        self,
        tokens: list[Mixer],
        channels: list[Mixer],
        sizes: list[int],
        norm: NormKind = "rms",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.order = order_of(len(tokens), len(channels), "MambaMixer")
        self.whole, self.length = list(sizes), math.prod(sizes)
        self.d_model = tokens[0].d_model
        widths = {m.d_model for m in tokens}, {m.d_model for m in channels} | {self.length}
        if any(len(each) > 1 for each in widths):
            raise ValueError(
                f"Token mixers of MambaMixer have one width, and channel mixers that of the {self.length} "
                f"tokens of a row; got {sorted(widths[0])} and {sorted(widths[1])}."
            )
        self.tokens, self.channels = nn.ModuleList(tokens), nn.ModuleList(channels)
        self.norms = nn.ModuleList(build_norm(norm, self.d_model) for _ in self.order)
        self.norm = build_norm(norm, self.d_model)
        self.dropout = nn.Dropout(dropout)
        self.averages = Averages(self.order)

    def read(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """All mixers in turn, and the norm."""

        def layer(i: int, x: Tensor) -> Tensor:
            return self.dropout(self.mixed(i, self.norms[i](x)))

        return self.norm(self.averages(x, layer))

    def mixed(self, i: int, x: Tensor) -> Tensor:
        """Mixer number i alone, of either kind, (b, t, d) to the same."""
        place = self.order[:i].count(self.order[i])
        if self.order[i]:
            return self.channels[place](x.mT)[0].mT
        return self.tokens[place](x)[0]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside; the weights of the averages without decay."""
        inside: list[Any] = [*self.tokens, *self.channels]
        weights = [*self.averages.parameters()]
        return [*(g for m in inside for g in m.parameter_groups()), ParameterGroup(weights, decay=False)]

    @classmethod
    def example(cls) -> "MambaMixer":
        """A small instance over rows of five tokens."""
        torch.manual_seed(0)
        tokens: list[Mixer] = [Bidirectional.example(), Bidirectional.example()]
        return cls(tokens, [Bidirectional(MinGRU(5), MinGRU(5))], [5])


def parts(stack: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The specs of a stack's mixers, and its norm and dropout. Perceptrons are left out.

    Raises:
        ValueError: norms behind residuals, of which there are none.
    """
    blocks = stack["blocks"]
    first = blocks[0]
    if first.get("post_norm"):
        raise ValueError("Mixers without residuals have no norms behind them; leave post_norm out.")
    return [block["mixer"] for block in blocks], {"norm": first["norm"], "dropout": first["dropout"]}


def spec(
    stacks: list[Callable[[int, int | None], dict[str, Any]]],
    d_model: int,
    depth: int | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The spec after ``mamba_mixer:TOKENS:CHANNELS``; one pattern is for both.

    ``options``: ``sizes`` of a row, and ``every``, token mixers to a channel mixer (1). Perceptrons that a
    stack of these kinds would have are left out: the channel mixers stand in their place.

    Raises:
        ValueError: an option that there is not, no sizes, or more than two patterns.
    """
    given = {"every": 1, **options}
    unknown = [name for name in options if name not in ("sizes", "every")]
    if unknown or len(stacks) > 2:
        raise ValueError(
            f"mamba_mixer takes one pattern or two and the options sizes and every; got {len(stacks)} "
            f"patterns and {', '.join(map(repr, options)) or 'no options'}."
        )
    if "sizes" not in given:
        raise ValueError("mamba_mixer needs the number of tokens of a row: give sizes=[tokens].")
    tokens, common = parts(stacks[0](d_model, depth))
    length = math.prod(given["sizes"])
    channels, _ = parts(stacks[-1](length, max(1, len(tokens) // given["every"])))
    return {"tokens": tokens, "channels": channels, "sizes": list(given["sizes"]), **common}
