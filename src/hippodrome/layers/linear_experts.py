"""A mixture of linear maps, all of which read every token."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.ops.linear import linear


class LinearExperts(nn.Module):
    """y = sum_k p_k W_k x with p = softmax(G x + b): k matrices without biases, weighted for each token.

    A dense mixture of experts (Jacobs, Jordan, Nowlan, Hinton 1991, "Adaptive mixtures of local experts") of
    the form that SMETimes puts behind its language model (Fan, Li, Weng, Zhou 2025, arXiv 2503.03594; its
    released code). None is left out, so nothing has to be balanced. One expert is a linear map, and has no
    gate. Every matrix starts as that of ``torch.nn.Linear`` does; p is taken in float32 at least.

    Args:
        d_in: channels in.
        d_out: channels out.
        experts: k, one or more.

    Raises:
        ValueError: there is no expert.
    """

    def __init__(self, d_in: int, d_out: int, experts: int = 4) -> None:
        super().__init__()
        if experts < 1:
            raise ValueError(f"a mixture has one expert at least; got {experts}. Give 1 for a linear map.")
        self.experts = experts
        self.weight = nn.Parameter(torch.empty(experts, d_out, d_in).uniform_(-(d_in**-0.5), d_in**-0.5))
        self.gate = nn.Linear(d_in, experts) if experts > 1 else None

    def gates(self, x: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows k"]:
        """The weights p of the experts: above zero, one in sum."""
        if self.gate is None:
            return torch.ones_like(x[..., :1])
        values = self.gate(x)
        return values.softmax(-1, dtype=torch.promote_types(values.dtype, torch.float32)).to(x.dtype)

    def forward(self, x: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows o"]:
        """Each row on its own."""
        if self.gate is None:
            return linear(x, self.weight[0], None)
        said = linear(x, self.weight.flatten(0, 1), None).unflatten(-1, (self.experts, -1))
        return (self.gates(x)[..., None] * said).sum(-2)
