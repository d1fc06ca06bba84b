"""Weighted averaging of earlier outputs: layers of two kinds, each of which reads all that came before it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Averages(nn.Module):
    """x_l = sum_i a_li y_i of the one kind + sum_i b_li y_i of the other, over all outputs before layer l.

    Behrouz, Santacatterina, Zabih 2024, "MambaMixer: efficient selective state space models with dual token
    and channel selection", arXiv 2403.19888, section 3.2, equations of the weighted averaging of earlier
    features: alpha and beta are the weights of a token mixer, theta and gamma those of a channel mixer. The
    input is the output number 0 of both kinds. What leaves is what one more layer would read.

    All weights start at 1 and those of the input at 1/2, which is a network of residual branches to the
    letter: there a layer reads the sum of the input and of all outputs before it. The paper's own start is
    not known.

    Args:
        order: of each layer in turn whether it is a channel mixer.
    """

    def __init__(self, order: list[bool]) -> None:
        super().__init__()
        self.order = list(order)
        seen = [(order[:i].count(False), order[:i].count(True)) for i in range(len(order) + 1)]
        self.of_tokens, self.of_channels = (
            nn.ParameterList(nn.Parameter(_ones(1 + count)) for count in counts)
            for counts in zip(*seen, strict=True)
        )

    def forward(self, x: Tensor, layer: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Run all layers; ``layer(i, x)`` is number i of them."""
        outputs: tuple[list[Tensor], list[Tensor]] = ([x], [x])
        for i, channels in enumerate(self.order):
            outputs[channels].append(layer(i, self._read(i, outputs)))
        return self._read(len(self.order), outputs)

    def _read(self, i: int, outputs: tuple[list[Tensor], list[Tensor]]) -> Tensor:
        """What layer i reads, and the caller where there is none of that number."""
        found = torch.zeros_like(outputs[0][0])
        for weights, kind in zip((self.of_tokens[i], self.of_channels[i]), outputs, strict=True):
            for weight, y in zip(weights.to(found.dtype).unbind(), kind, strict=True):
                found = torch.addcmul(found, y, weight)
        return found


def order_of(tokens: int, channels: int, owner: str) -> list[bool]:
    """Layers of both kinds in turn, the channel mixers spread evenly behind the token mixers.

    Raises:
        ValueError: no token mixer, or more channel mixers than token mixers.
    """
    if tokens < 1 or channels > tokens:
        raise ValueError(
            f"{owner} has a token mixer at least, and at most one channel mixer behind each; got {tokens} "
            f"token mixers and {channels} channel mixers. Take more of the first or fewer of the second."
        )
    order: list[bool] = []
    for i in range(tokens):
        order.append(False)
        if (i + 1) * channels // tokens > i * channels // tokens:
            order.append(True)
    return order


def _ones(count: int) -> Tensor:
    weights = torch.ones(count)
    weights[0] = 0.5
    return weights
