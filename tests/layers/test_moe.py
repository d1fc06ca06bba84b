"""The mixture of experts: routing against a dense loop, load balancing, cost, and odd sizes."""

import pytest
import torch
from torch import Tensor

from hippodrome.analyze.cost import active_parameters, count_flops, parameter_count, weight_bytes_read
from hippodrome.layers.mlp import GatedMLP, activation_function
from hippodrome.layers.moe import MoE


def dense(moe: MoE, x: Tensor) -> Tensor:
    """Every expert over every token, weighted by what the router says; zero where it was not chosen."""
    probable = (x @ moe.router.weight.T).softmax(-1)
    kept = probable.topk(moe.active, -1)
    share = torch.zeros_like(probable).scatter(-1, kept.indices, kept.values)
    if moe.renormalize:
        share = share / share.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    for e in range(moe.experts):
        inner = x @ moe.fc1.weight[e].T
        if moe.gated:
            v, gate = inner.chunk(2, -1)
            inner = v * torch.nn.functional.silu(gate)
        else:
            inner = inner.clamp(min=0) ** 2
        y = y + share[..., e : e + 1] * (inner @ moe.fc2.weight[e].T)
    return y


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(("active", "experts"), [(1, 4), (2, 4), (3, 3), (2, 16)])
@pytest.mark.parametrize("gated", [True, False])
def test_it_is_the_dense_loop(renormalize, active, experts, gated):
    torch.manual_seed(0)
    activation = "silu" if gated else "relu2"
    moe = MoE(6, 5, experts, active, activation, gated, renormalize).double()
    x = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    names = ["x", *dict(moe.named_parameters())]
    leaves = [x, *moe.parameters()]
    weight = torch.randn(2, 7, 6, dtype=torch.float64)
    moe.eval()
    torch.testing.assert_close(moe(x), dense(moe, x))
    expected = torch.autograd.grad((dense(moe, x) * weight).sum(), leaves)
    for name, one, other in zip(
        names, torch.autograd.grad((moe(x) * weight).sum(), leaves), expected, strict=True
    ):
        torch.testing.assert_close(one, other, msg=name)
    for some in (x[0, :1], x[:, :0], x[0, 0]):  # one token, none, a token without further axes
        torch.testing.assert_close(moe(some), dense(moe, some))


def test_equal_experts_leave_their_probabilities_as_they_are():
    torch.manual_seed(0)
    moe, mlp = MoE(6, 5, 16, 2).double().eval(), GatedMLP(6, 5).double()
    with torch.no_grad():
        moe.fc1.weight.copy_(mlp.fc1.weight.expand_as(moe.fc1.weight))
        moe.fc2.weight.copy_(mlp.fc2.weight.expand_as(moe.fc2.weight))
    x = torch.randn(9, 6, dtype=torch.float64)
    two = (x @ moe.router.weight.T).softmax(-1).topk(2).values.sum(-1, keepdim=True)
    assert (two < 0.9).all()
    torch.testing.assert_close(moe(x), two * mlp(x))
    moe.renormalize = True
    torch.testing.assert_close(moe(x), mlp(x))


def test_the_balancing_loss_joins_the_gradient_and_can_be_read():
    torch.manual_seed(0)
    moe = MoE(6, 5, experts=4, active=2, balance=0.3).double()
    x = torch.randn(11, 6, dtype=torch.float64)
    weight = torch.randn(11, 6, dtype=torch.float64)
    (got,) = torch.autograd.grad((moe(x) * weight).sum(), [moe.router.weight])

    probable = (x @ moe.router.weight.T).softmax(-1)
    chosen = torch.zeros(4, dtype=torch.float64)
    for row in probable.topk(2).indices:
        chosen[row] += 1 / len(x)
    loss = 4 * (chosen * probable.mean(0)).sum()
    (expected,) = torch.autograd.grad((dense(moe, x) * weight).sum() + 0.3 * loss, [moe.router.weight])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(moe.last_balance, loss.detach())
    with torch.no_grad():
        moe.router.weight.zero_()
    moe(x)
    torch.testing.assert_close(moe.last_balance.item(), 2.0)  # an even router: ``active``


def test_balancing_evens_a_router_that_prefers_one_expert():
    torch.manual_seed(0)
    moe = MoE(8, 8, experts=4, active=1, balance=1.0)
    x = torch.randn(256, 8) + 1.0
    with torch.no_grad():
        moe.router.weight[0] += 0.5

    def most() -> float:
        return torch.bincount(moe.route(x)[1].flatten(), minlength=4).max().item() / len(x)

    before = most()
    optimizer = torch.optim.Adam([moe.router.weight], lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        (0.0 * moe(x)).sum().backward()
        optimizer.step()
    assert before > 0.7
    assert most() < 0.4


def by_hand(moe: MoE, x: Tensor) -> Tensor:
    """A token at a time: groups, the corrected choice, weights without the correction, what stands around."""
    per, rows = moe.experts // moe.groups, []
    for token in x:
        score = 1 / (1 + (-(moe.router.weight @ token)).exp())
        wanted = score + moe.correction
        groups = sorted(
            range(moe.groups), key=lambda g: -wanted[g * per : (g + 1) * per].sort()[0][-2:].sum()
        )
        open_to = [e for g in groups[: moe.active_groups] for e in range(g * per, (g + 1) * per)]
        chosen = sorted(open_to, key=lambda e: -wanted[e])[: moe.active]
        weights = score[chosen] / (score[chosen].sum() if moe.renormalize else 1)
        read, y = token if moe.enter is None else moe.enter(token), 0
        for e, weight in zip(chosen, weights * moe.factor, strict=True):
            inner = moe.fc1.weight[e] @ read
            inner = inner[: len(inner) // 2] * torch.nn.functional.silu(inner[len(inner) // 2 :])
            y = y + weight * (moe.fc2.weight[e] @ inner)
        y = y if moe.leave is None else moe.leave(y)
        rows.append(y if moe.shared is None else y + moe.shared(token))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"groups": 4, "active_groups": 2, "renormalize": True, "factor": 2.5},
        {"groups": 8, "active_groups": 3, "shared": 7, "latent": 4, "bias": True},
    ],
)
def test_sigmoids_choose_by_a_correction_and_in_groups(given):
    torch.manual_seed(0)
    moe = MoE(6, 5, 8, 2, scores="sigmoid", balance=0.0, **given).double()
    moe.correction.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(20, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(moe(x), by_hand(moe, x))
    uncorrected = MoE(6, 5, 8, 2, scores="sigmoid", balance=0.0, **given).double()
    uncorrected.load_state_dict({**moe.state_dict(), "correction": torch.zeros(8)})
    assert not torch.equal(moe.route(x)[1], uncorrected.route(x)[1])
    leaves = [x, *moe.parameters()]
    got, expected = (
        torch.autograd.grad(f(x).square().sum(), leaves) for f in (moe, lambda x: by_hand(moe, x))
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_balancing_loss_of_sigmoids_takes_their_shares():
    torch.manual_seed(0)
    moe = MoE(6, 5, 4, 2, balance=0.3, scores="sigmoid").double()
    x = torch.randn(11, 6, dtype=torch.float64)
    (got,) = torch.autograd.grad(moe(x).sum(), [moe.router.weight])
    scores = (x @ moe.router.weight.T).sigmoid()
    chosen = torch.zeros(11, 4, dtype=torch.float64).scatter(1, scores.topk(2).indices, 1.0).mean(0)
    loss = 4 * (chosen * (scores / scores.sum(-1, keepdim=True)).mean(0)).sum()
    (expected,) = torch.autograd.grad(by_hand(moe, x).sum() + 0.3 * loss, [moe.router.weight])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(moe.last_balance, loss.detach())


def test_a_token_costs_its_own_experts_alone():
    few, many = (MoE(16, 24, experts, 2).eval() for experts in (4, 32))
    x = torch.randn(10, 16)
    routed = 2 * 10 * 2 * 3 * 24 * 16
    for moe in (few, many):
        flops, uncounted = count_flops(lambda moe=moe: moe(x))
        assert not uncounted
        assert routed <= flops < 1.5 * routed
        used = 2 * 3 * 24 * 16 + moe.experts * 16
        assert active_parameters(moe) == used
        assert weight_bytes_read(moe) == 4 * used
    assert parameter_count(many) == 32 * (3 * 24 * 16 + 16)


def test_an_exported_program_routes_as_its_inputs_ask():
    moe = MoE(6, 5, experts=4).eval()
    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(moe, (torch.randn(5, 6),), dynamic_shapes=({0: rows},))
    x = torch.randn(9, 6)
    torch.testing.assert_close(program.module()(x), moe(x))


def test_what_cannot_be():
    for given, said in (
        ({"active": 9}, "at most all 8"),
        ({"active": 0}, "one expert at least"),
        ({"balance": -0.1}, "0 or more"),
        ({"groups": 3}, "groups must divide the experts; got 3 for 8"),
        ({"groups": 4, "active_groups": 5}, "at most all 4"),
        ({"groups": 8, "active_groups": 1}, "1 groups of 1 experts hold fewer than the 2"),
        ({"scores": "tanh"}, "'softmax' or 'sigmoid'; got 'tanh'"),
    ):
        with pytest.raises(ValueError, match=said):
            MoE(8, **given)
    with pytest.raises(ValueError, match=r"no activation 'swish'.*silu, gelu"):
        activation_function("swish")
