"""The mixture of memories: its base layers as special cases, exact routing, and the loss that balances it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.mixers import mom
from hippodrome.mixers._memories import RULES
from hippodrome.mixers._routing import SLACK, balance, pack_alike, pack_all, route
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.gated_delta_net import GatedDeltaNet
from hippodrome.mixers.gla import GatedLinearAttention
from hippodrome.mixers.mom import MixtureOfMemories, State
from hippodrome.testing.mixers import check_forward, check_gradients, check_resets, prepared, tokens


def fixed_route(mixer: MixtureOfMemories, numbers: list[int], k: int = 1) -> Tensor:
    """Inputs (1, t, d) whose token i chooses memory numbers[i]: channel m alone speaks for memory m."""
    with torch.no_grad():
        mixer.router.weight.zero_()
        mixer.router.weight[:, : mixer.memories] = 50 * torch.eye(mixer.memories, dtype=torch.float64)
    x = tokens(mixer, 1, len(numbers), seed=7)
    x[..., : mixer.memories] = F.one_hot(torch.tensor(numbers), mixer.memories).double()
    return x


@pytest.mark.parametrize("gated", [True, False])
def test_one_memory_is_the_delta_layer(gated: bool) -> None:
    base = prepared(GatedDeltaNet(8, heads=2, head_dim=3, expand=2, gated=gated))
    mixer = MixtureOfMemories(
        8, "gated_delta" if gated else "delta", 1, 1, heads=2, head_dim=3, expand=2, shared=False
    ).double()
    q, k, v, z, beta, raw = base.in_proj.weight.split([6, 6, 12, 12, 2, 2 if gated else 0])
    with torch.no_grad():
        mixer.in_proj.weight.copy_(torch.cat([q, z]))
        mixer.kv_proj[0].weight.copy_(torch.cat([k, v, beta, raw]))
    mixer.conv.load_state_dict(base.conv.state_dict())
    mixer.norm.load_state_dict(base.norm.state_dict())
    mixer.out_proj.load_state_dict(base.out_proj.state_dict())
    if gated:
        mixer.rule.load_state_dict({"dt_bias": base.dt_bias, "A_log": base.A_log})
    x = tokens(mixer, 2, 9)
    torch.testing.assert_close(mixer(x)[0], base(x)[0], atol=1e-12, rtol=1e-10)


def test_one_memory_is_gated_linear_attention() -> None:
    base = prepared(GatedLinearAttention(8, heads=2, gate_rank=3))
    mixer = MixtureOfMemories(8, "gla", 1, 1, heads=2, head_dim=2, expand=2, shared=False, gate_rank=3)
    mixer = mixer.double()
    q, k, v, z, low = base.in_proj.weight.split([4, 4, 8, 8, 3])
    with torch.no_grad():
        mixer.in_proj.weight.copy_(torch.cat([q, z]))
        mixer.kv_proj[0].weight.copy_(torch.cat([k, v, low]))
    mixer.rule.decay_proj.load_state_dict(base.decay_proj.state_dict())
    mixer.norm.load_state_dict(base.norm.state_dict())
    mixer.out_proj.load_state_dict(base.out_proj.state_dict())
    x = tokens(mixer, 2, 9)
    torch.testing.assert_close(mixer(x)[0], base(x)[0], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("rule", ["linear", "retention", "mamba2", "hgrn2"])
def test_one_memory_against_its_equation_written_out(rule: str) -> None:
    mixer = prepared(MixtureOfMemories(4, rule, 1, 1, heads=1, shared=False, taps=0))
    x = tokens(mixer, 1, 7)[0]
    q, z = mixer.in_proj(x).split(4, -1)
    own = mixer.kv_proj[0](x)
    S, o = torch.zeros(4, 4, dtype=torch.float64), []
    for t in range(7):
        k, v = own[t, :4], own[t, -4:] if rule == "hgrn2" else own[t, 4:8]
        if rule == "linear":
            S = S + torch.outer(k, v)
        elif rule == "retention":
            S = 31 / 32 * S + torch.outer(k, v)
        elif rule == "mamba2":
            dt = torch.log1p(torch.exp(own[t, 8] + mixer.rule.dt_bias[0]))
            S = torch.exp(-dt * torch.exp(mixer.rule.A_log[0])) * S + dt * torch.outer(k, v)
        else:
            v, alpha = own[t, :4], torch.sigmoid(own[t, 4:])
            S = alpha[:, None] * S + torch.outer(1 - alpha, v)
        o.append(S.T @ q[t] / 2)
    o = torch.stack(o)
    o = mixer.norm.weight * o / torch.sqrt((o**2).mean(-1, keepdim=True) + 1e-5)
    expected = mixer.out_proj(o * F.silu(z))
    torch.testing.assert_close(mixer(x[None])[0][0], expected, atol=1e-12, rtol=1e-9)


def test_memories_that_are_alike_and_all_chosen_are_one() -> None:
    """Weights add up to one, so k = M copies read as one does, and a shared copy doubles it."""
    one = prepared(MixtureOfMemories(8, "linear", 1, 1, heads=2, shared=False))
    one.norm = torch.nn.Identity()
    x = tokens(one, 2, 9)
    for shared in (False, True):
        many = MixtureOfMemories(8, "linear", 3, 3, heads=2, shared=shared).double()
        many.norm = torch.nn.Identity()
        for part in ("in_proj", "out_proj"):
            many.get_submodule(part).load_state_dict(one.get_submodule(part).state_dict())
        for own in many.kv_proj:
            own.load_state_dict(one.kv_proj[0].state_dict())
        expected = one(x)[0] * (2 if shared else 1)
        torch.testing.assert_close(many(x)[0], expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("run", [lambda m, x, s: m(x, s), run_steps], ids=["forward", "step"])
def test_memories_that_are_not_chosen_stay_as_they_are_to_the_bit(run) -> None:
    mixer = prepared(MixtureOfMemories(8, memories=4, active=1, heads=2))
    x = fixed_route(mixer, [2, 0, 2, 2, 0])
    g = torch.Generator().manual_seed(3)
    fresh = mixer.init_state(1)
    state = State(*(torch.randn(s.shape, generator=g, dtype=torch.float64) for s in fresh))
    with torch.no_grad():
        _, after = run(mixer, x, state)
    for before, now in zip(state, after, strict=True):
        for m, moves in enumerate([True, False, True, False, True]):
            assert torch.equal(before[:, m], now[:, m]) is not moves


@pytest.mark.parametrize("shared", [False, True])
def test_two_tokens_of_two_memories_meet_only_in_the_shared_one(shared: bool) -> None:
    mixer = prepared(MixtureOfMemories(4, "gated_delta", 2, 1, heads=1, shared=shared))
    x = fixed_route(mixer, [0, 1])
    other = x.clone()
    other[0, 0, 2:] += 1.0
    with torch.no_grad():
        assert torch.equal(mixer(x)[0][0, 1], mixer(other)[0][0, 1]) is not shared
        if not shared:
            alone, _ = mixer(x[:, 1:])
            torch.testing.assert_close(mixer(x)[0][0, 1], alone[0, 0], atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"rule": rule} for rule in RULES]
    + [
        {"rule": "gated_delta", "single_kv": True, "shared": False},
        {"rule": "linear", "taps": 3, "memories": 5},
        {"rule": "retention", "taps": 1, "active": 4},
    ],
    ids=str,
)
def test_every_rule_packed_is_the_masked_loop_over_memories(options: dict) -> None:
    mixer = MixtureOfMemories(8, **{"heads": 2, "head_dim": 3, "gate_rank": 3, **options})
    resets = torch.zeros(2, 8, dtype=torch.bool)
    resets[0, [0, 4]] = resets[1, [3, 6, 7]] = True
    check_forward(mixer, 8, splits=(5,), resets=resets, batch=2)
    check_gradients(mixer, 4)


def test_a_memory_that_takes_nothing_in_after_a_reset_ends_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = prepared(MixtureOfMemories(8, memories=3, active=1, heads=2))
    x = fixed_route(mixer, [0, 1, 0, 2, 2, 2])
    resets = torch.tensor([[False, False, False, True, False, False]])
    for packing in (pack_alike, pack_all):
        monkeypatch.setattr(mom, "pack", packing)
        for state in (None, mixer(tokens(mixer, 1, 8))[1]):
            _, after = mixer(x, state, resets=resets)
            for tensor in after:
                assert not tensor[:, :2].any()
                assert tensor[:, 2:].any()
        check_resets(mixer, 6, [[5], [1, 3]])


def test_the_form_for_compilers_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = prepared(MixtureOfMemories(8, memories=4, active=2, heads=2))
    x, state = tokens(mixer, 3, 12), mixer(tokens(mixer, 3, 5, seed=2))[1]
    resets = torch.zeros(3, 12, dtype=torch.bool)
    resets[1, [2, 7]] = True
    expected, last = mixer(x, state, resets=resets)
    monkeypatch.setattr(mom, "pack", pack_all)
    y, after = mixer(x, state, resets=resets)
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=1e-10)
    for a, b in zip(after, last, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_packing_takes_every_token_once_and_wastes_little(skew: float) -> None:
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(6, 50, 5, generator=g) + skew * torch.randn(6, 1, 5, generator=g)
    chosen = route(logits, 2).chosen
    seen = torch.zeros_like(chosen, dtype=torch.int64)
    places = 0
    for pieces in pack_alike(chosen):
        assert sum(pieces.counts) == len(pieces.rows)
        assert pieces.memories.tolist() == sorted(pieces.memories.tolist())
        valid = pieces.valid()
        places += valid.numel()
        for row, memory, index, inside in zip(*pieces[:2], pieces.tokens, valid, strict=True):
            taken = index[inside].tolist()
            assert taken == sorted(taken)
            seen[row, taken, memory] += 1
    assert torch.equal(seen, chosen.long())
    assert places <= int(chosen.sum()) / SLACK


def test_weights_add_up_to_one_and_the_router_learns_through_them() -> None:
    mixer = prepared(MixtureOfMemories(8, memories=4, active=2, heads=2))
    x = tokens(mixer, 2, 9)
    weights, chosen = mixer.route(x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 9, dtype=torch.float64))
    assert (chosen.sum(-1) == 2).all()
    p = mixer.router(x).softmax(-1)
    assert torch.equal(chosen, p >= p.topk(2).values[..., 1:])
    mixer(x)[0].square().sum().backward()
    assert (mixer.router.weight.grad != 0).any()


def test_ties_go_to_the_first() -> None:
    chosen = route(torch.zeros(2, 4), 2).chosen
    assert chosen.tolist() == [[True, True, False, False]] * 2
    assert route(torch.zeros(3, dtype=torch.bfloat16), 1).weights.dtype == torch.float32


def test_the_balance_loss_is_k_where_balance_is_perfect() -> None:
    logits = 3 * torch.eye(4).repeat(2, 1) + 2.9 * torch.eye(4).roll(1, 0).repeat(2, 1)
    found = balance(route(logits, 2))
    torch.testing.assert_close(found.load, torch.full((4,), 0.5))
    torch.testing.assert_close(found.share, torch.full((4,), 0.25))
    assert float(found.loss) == pytest.approx(4 * 4 * 0.5 * 0.25)
    # One memory for all: f = (1, ...), P = (1, ...) with k = 1.
    assert float(balance(route(logits[:1], 1)).loss) == pytest.approx(4.0)


def test_perfect_balance_gives_k_with_the_means_that_the_authors_take() -> None:
    """f_m sums to k and P_m to one, so M sum f P = M (k / M) = k when they are even."""
    for memories, k in ((4, 2), (5, 1), (3, 3)):
        each = torch.stack([torch.eye(memories).roll(s, 0) for s in range(k)]).sum(0)
        assert float(balance(route(5 * each, k)).loss) == pytest.approx(k)


def test_training_adds_the_gradient_of_the_balance_loss_and_evaluation_does_not() -> None:
    mixer = prepared(MixtureOfMemories(8, memories=3, active=2, heads=2, balance=0.5))
    x = tokens(mixer, 2, 7)

    def gradient(moved: MixtureOfMemories) -> Tensor:
        moved(x)[0].square().sum().backward()
        return moved.router.weight.grad

    plain = gradient(copy.deepcopy(mixer).eval())
    trained = gradient(copy.deepcopy(mixer).train())
    loss = mixer.balance_of(x).loss
    (own,) = torch.autograd.grad(0.5 * loss, [mixer.router.weight])
    assert (own != 0).any()
    torch.testing.assert_close(trained - plain, own, atol=1e-12, rtol=1e-9)


def test_first_values_are_those_of_the_authors() -> None:
    mixer = MixtureOfMemories(64, memories=2, active=1)
    for weight, fan in (
        (mixer.router.weight, 66),
        (mixer.kv_proj[0].weight[:64], 128),
        (mixer.out_proj.weight, 128),
    ):
        bound = 2**-2.5 * (6 / fan) ** 0.5
        assert 0.8 * bound < float(weight.detach().abs().max()) <= bound


def test_what_cannot_be_meant_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"got active=5 of memories=4\. Choose active between 1 and 4\."):
        MixtureOfMemories(8, active=5)
    with pytest.raises(ValueError, match="got active=0 of memories=4"):
        MixtureOfMemories(8, active=0)
    with pytest.raises(ValueError, match="has no update rule 'rwkv'; expected one of linear, retention, gla"):
        MixtureOfMemories(8, rule="rwkv")
    with pytest.raises(ValueError, match="heads must divide d_model; got 3 for 8"):
        MixtureOfMemories(8, heads=3)
