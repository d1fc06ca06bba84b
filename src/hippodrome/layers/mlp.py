"""Multilayer perceptrons that act on each token alone: with a gate, and without one."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.layers.projection import Projection

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]


def _relu2(x: Tensor) -> Tensor:
    return torch.square(F.relu(x))


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
    "relu2": _relu2,
}


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"A perceptron has no activation {name!r}; expected one of {', '.join(_FUNCTIONS)}.")
    return _FUNCTIONS[name]


class GatedMLP(nn.Module):
    """fc2(y * silu(gate)) with [y | gate] = fc1(x) (Shazeer 2020, arXiv 2002.05202, equation 6, "SwiGLU").

    Args:
        d_model: channels in and out.
        d_hidden: channels between; None takes 8/3 d_model, rounded up to a multiple of 8, which costs as many
            parameters as an ungated perceptron of 4 d_model.
        activation: of the gate.
        bias: whether the maps have biases.
        gate_scale: of the gate, before its function.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int | None = None,
        activation: Activation = "silu",
        bias: bool = False,
        gate_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.gate_scale = gate_scale
        if d_hidden is None:
            d_hidden = gated_size(d_model)
        self.function = activation_function(activation)
        self.fc1 = Projection(d_model, 2 * d_hidden, bias=bias)
        self.fc2 = Projection(d_hidden, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Each token on its own."""
        y, gate = self.fc1(x).chunk(2, -1)
        if self.gate_scale != 1.0:
            gate = gate * self.gate_scale
        return self.fc2(y * self.function(gate))


class FeedForward(nn.Module):
    """fc2(f(fc1(x))), by default with f(x) = max(x, 0)^2 (So et al. 2021, arXiv 2109.08668, "Primer").

    Args:
        d_model: channels in and out.
        d_hidden: channels between; None takes 4 d_model.
        activation: f; "relu2" is the squared one.
        bias: whether both maps have biases.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int | None = None,
        activation: Activation = "relu2",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if d_hidden is None:
            d_hidden = 4 * d_model
        self.function = activation_function(activation)
        self.fc1 = Projection(d_model, d_hidden, bias=bias)
        self.fc2 = Projection(d_hidden, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Each token on its own."""
        return self.fc2(self.function(self.fc1(x)))


def gated_size(d_model: int) -> int:
    """8/3 of the width, rounded up to a multiple of 8: a gated perceptron's channels between."""
    return 8 * -(-d_model // 3)
