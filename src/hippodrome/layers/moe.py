"""Mixture of experts: perceptrons of which each token goes through a few, chosen by a router."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.layers.heads import check_divides
from hippodrome.layers.mlp import Activation, FeedForward, GatedMLP, activation_function, gated_size
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

    With ``scores="sigmoid"`` p = sigmoid(router(x)), experts are chosen by p + correction, a buffer that is
    zero unless a checkpoint says otherwise, and weighted by p alone (DeepSeek-AI 2024, "DeepSeek-V3", arXiv
    2412.19437, equations 12 to 16). With ``groups`` a token chooses among the experts of ``active_groups``
    groups of neighbours alone, those with the largest sums of the two best p + correction (section 2.1.2
    there). ``shared`` adds a perceptron that every token goes through, and with ``latent`` experts read and
    write fewer channels between two maps of their own, as in Nemotron-H.

    In training the gradient of ``balance`` times the load balancing loss joins that of the probabilities:
    experts * sum_e f_e P_e, with f_e the share of tokens that chose e and P_e the mean probability of e over
    the tokens of this call, padding among them (equations 4 to 6 there; it is ``active`` where the load is
    even); sigmoids are divided by their sum for it. ``last_balance`` holds its value without the factor.

    Args:
        d_model: channels in and out.
        d_hidden: channels between, of each expert; None takes 8/3 d_model, or 4 d_model without gates.
        experts: how many there are.
        active: how many each token goes through.
        activation: of the gate, or between the maps where there is none.
        gated: whether experts have a gate.
        renormalize: whether the chosen probabilities are divided by their sum.
        balance: weight of the load balancing loss; 0 for none.
        scores: what p is of the router's values: "softmax" or "sigmoid".
        groups: equal runs of experts, of which a token chooses some first.
        active_groups: how many of those; None for all.
        factor: multiplies the weights of the chosen, last.
        shared: channels inside a perceptron beside the experts, of their kind; None for none.
        latent: channels that experts read and write; None for d_model.
        bias: whether the shared perceptron and the maps around the experts have biases. Experts have none.

    Raises:
        ValueError: more experts active than there are (in the chosen groups) or fewer than one, groups that
            do not divide the experts or are fewer than are to be chosen, a negative weight, an unknown word.
    """

    last_balance: Tensor
    correction: Tensor

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
        scores: str = "softmax",
        groups: int = 1,
        active_groups: int | None = None,
        factor: float = 1.0,
        shared: int | None = None,
        latent: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise ValueError(
                f"A token goes through one expert at least and at most all {experts}; got active={active}. "
                f"Choose active between 1 and {max(experts, 1)}."
            )
        check_divides("groups", groups, "the experts", experts)
        if not 1 <= (active_groups := groups if active_groups is None else active_groups) <= groups:
            raise ValueError(
                f"A token chooses among one group of experts at least and at most all {groups}; got "
                f"active_groups={active_groups}. Choose between 1 and {groups}."
            )
        if active > active_groups * (experts // groups):
            raise ValueError(
                f"{active_groups} groups of {experts // groups} experts hold fewer than the {active} that a "
                "token goes through. Raise active_groups, or lower active or groups."
            )
        if scores not in ("softmax", "sigmoid"):
            raise ValueError(f"Scores of experts are 'softmax' or 'sigmoid'; got {scores!r}.")
        if balance < 0:
            raise ValueError(f"The weight of the load balancing loss is 0 or more; got {balance}.")
        if d_hidden is None:
            d_hidden = gated_size(d_model) if gated else 4 * d_model
        self.experts, self.active = experts, active
        self.gated, self.renormalize, self.balance = gated, renormalize, balance
        self.function = activation_function(activation)
        self.scores, self.groups, self.active_groups, self.factor = scores, groups, active_groups, factor
        self.router = Projection(d_model, experts, bias=False)
        width = d_model if latent is None else latent
        self.fc1 = StackedProjection(experts, width, (1 + gated) * d_hidden)
        self.fc2 = StackedProjection(experts, d_hidden, width)
        self.enter = None if latent is None else Projection(d_model, latent, bias=bias)
        self.leave = None if latent is None else Projection(latent, d_model, bias=bias)
        kind = GatedMLP if gated else FeedForward
        self.shared = None if shared is None else kind(d_model, shared, activation, bias)
        # A buffer, not a parameter: no gradient reaches what only chooses. Softmax has no use for it.
        self.register_buffer("correction", torch.zeros(experts) if scores == "sigmoid" else None)
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
        read = tokens if self.enter is None else self.enter(tokens)
        inner = self.fc1(read[order // self.active], counts)
        if self.gated:
            v, gate = inner.chunk(2, -1)
            inner = v * self.function(gate)
        else:
            inner = self.function(inner)
        out = self.fc2(inner, counts)
        # Back to the order of tokens by a gather, which gives the same bits on every device and every run.
        back = out[order.argsort()].view(-1, self.active, out.shape[-1])
        y = (back.to(share.dtype) * share[..., None]).sum(1).to(x.dtype)
        y = y if self.leave is None else self.leave(y)
        return (y if self.shared is None else y + self.shared(tokens)).view_as(x)

    def route(self, tokens: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """The weights and the numbers of the experts that each token goes through, most probable first."""
        logits = self.router(tokens)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scores == "softmax":
            scores, total = logits.softmax(-1), None
            wanted = scores
        else:
            scores = logits.sigmoid()
            total, wanted = scores.sum(-1, keepdim=True), scores + self.correction
        chosen = self._grouped(wanted).topk(self.active, -1).indices
        if self.training and self.balance and len(tokens):
            probable = scores if total is None else scores / total
            load = torch.zeros_like(probable).scatter(1, chosen, 1.0).mean(0) * self.experts
            with torch.no_grad():
                self.last_balance.copy_((load * probable.mean(0)).sum())
            probable = _Balanced.apply(probable, load, self.balance)
            scores = probable if total is None else probable * total
        share = scores.gather(1, chosen)
        if self.renormalize:
            # A sum of sigmoids may underflow.
            share = share / (share.sum(-1, keepdim=True) + 1e-20)
        return (share if self.factor == 1 else share * self.factor), chosen

    def _grouped(self, wanted: Float[Tensor, "n e"]) -> Float[Tensor, "n e"]:
        """What experts are chosen by, minus infinity outside the groups that a token chooses."""
        if self.active_groups == self.groups:
            return wanted
        split = wanted.unflatten(-1, (self.groups, -1))
        best = split.topk(min(2, split.shape[-1]), -1).values.sum(-1).topk(self.active_groups, -1).indices
        out = torch.ones_like(split[..., 0], dtype=torch.bool).scatter(1, best, False)
        return split.masked_fill(out[..., None], -torch.inf).flatten(1)


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
