"""Mixture of experts: perceptrons of which each token goes through a few, chosen by a router."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.layers.mlp import Activation, activation_function, gated_size
from hippodrome.layers.projection import Projection
from hippodrome.layers.stacked_projection import StackedProjection


class MoE(nn.Module):
    """y = sum over the ``active`` most probable experts e of p_e fc2_e(v silu(gate)), [v | gate] = fc1_e(x);
    p = softmax(router(x)) over all experts.

    Fedus, Zoph, Shazeer 2021, "Switch transformers", arXiv 2101.03961, equations 1 and 2, for more than one
    expert and without a bound on an expert's tokens: none is dropped. The probabilities of the chosen are
    used as they are, as in Jamba (Lieber et al. 2024, arXiv 2403.19887), or divided by their sum.
    Probabilities are taken in float32 at least.

    Tokens are sorted by expert and each expert reads its own alone, so that the arithmetic is that of
    ``active`` perceptrons whatever the number of experts. Under ``torch.compile`` and ``torch.export`` the
    products are one operator each and the graph is whole.

    In training the gradient of ``balance`` times the load balancing loss joins that of the probabilities:
    experts * sum_e f_e P_e, with f_e the share of tokens that chose e and P_e the mean probability of e over
    the tokens of this call, padding among them (equations 4 to 6 there; it is ``active`` where the load is
    even). ``last_balance`` holds its value without the factor.

    Args:
        d_model: channels in and out.
        d_hidden: channels between, of each expert; None takes 8/3 d_model, or 4 d_model without gates.
        experts: how many there are.
        active: how many each token goes through.
        activation: of the gate, or between the maps where there is none.
        gated: whether experts have a gate.
        renormalize: whether the chosen probabilities are divided by their sum.
        balance: weight of the load balancing loss; 0 for none.

    Raises:
        ValueError: more experts active than there are or fewer than one, a negative weight, an unknown
            activation.
    """

    last_balance: Tensor

    def __init__(
        self,
        d_model: int,
        d_hidden: int | None = None,
        experts: int = 8,
        active: int = 2,
        activation: Activation = "silu",
        gated: bool = True,
        renormalize: bool = False,
        balance: float = 0.01,
    ) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise ValueError(
                f"A token goes through one expert at least and at most all {experts}; got active={active}. "
                f"Choose active between 1 and {max(experts, 1)}."
            )
        if balance < 0:
            raise ValueError(f"The weight of the load balancing loss is 0 or more; got {balance}.")
        if d_hidden is None:
            d_hidden = gated_size(d_model) if gated else 4 * d_model
        self.experts, self.active = experts, active
        self.gated, self.renormalize, self.balance = gated, renormalize, balance
        self.function = activation_function(activation)
        self.router = Projection(d_model, experts, bias=False)
        self.fc1 = StackedProjection(experts, d_model, (1 + gated) * d_hidden)
        self.fc2 = StackedProjection(experts, d_hidden, d_model)
        self.register_buffer("last_balance", torch.zeros(()), persistent=False)

    @property
    def idle(self) -> int:
        """How many parameters a token does not go through."""
        every = self.fc1.weight.numel() + self.fc2.weight.numel()
        return every // self.experts * (self.experts - self.active)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Each token on its own."""
        tokens = x.reshape(-1, x.shape[-1])
        share, chosen = self.route(tokens)
        owner = chosen.flatten()
        order = owner.argsort(stable=True)
        counts = owner.new_zeros(self.experts).scatter_add(0, owner, torch.ones_like(owner))
        inner = self.fc1(tokens[order // self.active], counts)
        if self.gated:
            v, gate = inner.chunk(2, -1)
            inner = v * self.function(gate)
        else:
            inner = self.function(inner)
        out = self.fc2(inner, counts)
        # Back to the order of tokens by a gather, which gives the same bits on every device and every run.
        back = out[order.argsort()].view(-1, self.active, x.shape[-1])
        return (back.to(share.dtype) * share[..., None]).sum(1).to(x.dtype).view_as(x)

    def route(self, tokens: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """The weights and the numbers of the experts that each token goes through, most probable first."""
        logits = self.router(tokens)
        probable = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        share, chosen = probable.topk(self.active, -1)
        if self.training and self.balance and len(tokens):
            load = torch.zeros_like(probable).scatter(1, chosen, 1.0).mean(0) * self.experts
            with torch.no_grad():
                self.last_balance.copy_((load * probable.mean(0)).sum())
            share = _Balanced.apply(probable, load, self.balance).gather(1, chosen)
        if self.renormalize:
            share = share / share.sum(-1, keepdim=True)
        return share, chosen


class _Balanced(torch.autograd.Function):
    """Probabilities (n, e) as they are; backwards, also the gradient of ``weight`` sum_e load_e mean(p_e)."""

    @staticmethod
    def forward(ctx: Any, probable: Tensor, load: Tensor, weight: float) -> Tensor:
        """The probabilities."""
        ctx.save_for_backward(load)
        ctx.weight = weight
        return probable.view_as(probable)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """What comes, and the loss's own."""
        (load,) = ctx.saved_tensors
        return grad + ctx.weight / grad.shape[0] * load, None, None


def idle_parameters(module: nn.Module) -> int:
    """How many of a module's parameters one token does not go through: those of experts not chosen."""
    return sum(inner.idle for inner in module.modules() if isinstance(inner, MoE))
