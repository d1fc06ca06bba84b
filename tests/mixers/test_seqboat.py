"""SeqBoat: who is activated, what the rest gets, a dense oracle, and a cost that follows activation."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hippodrome.mixers.longvq import LongVQ
from hippodrome.mixers.mega import Mega
from hippodrome.mixers.seqboat import SeqBoat
from hippodrome.testing.mixers import check_mixer, check_noncausal, prepared, tokens, warm_state

SMALL = {"d_state": 4, "d_query": 4, "d_value": 8, "window": 3, "temperature": 0.1}


def routed(mixer: SeqBoat, bias: float) -> SeqBoat:
    """The router moved: a large bias activates everything, a small one nothing."""
    with torch.no_grad():
        mixer.to_router.weight[:2] = 0
        mixer.to_router.bias[:2] = torch.tensor([0.0, bias])
    return mixer


def parts(mixer: SeqBoat, x: torch.Tensor):
    """m, the linear branch and the logits of the router."""
    m = F.silu(mixer.ema(x)[0])
    logits, hx = mixer.to_router(m).split([2, x.shape[-1]], -1)
    return m, hx, logits


def dense(mixer: SeqBoat, x: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """The layer by a mask over all pairs of tokens: one row at a time, from the paper's equations."""
    m, hx, logits = parts(mixer, x)
    p = (logits / mixer.theta.exp()).softmax(-1)[..., 1]
    z, v, r = F.silu(mixer.to_unit(m)).split([4, 8, 8], -1)
    q = z * mixer.query_key.gamma[0] + mixer.query_key.beta[0]
    k = z * mixer.query_key.gamma[1] + mixer.query_key.beta[1]
    t = x.shape[1]
    place, outputs = torch.arange(t), []
    for row in range(len(x)):
        on = active[row]
        number = on.long().cumsum(0) - 1
        far = number[:, None] - number
        behind = far >= (0 if mixer.causal else -mixer.window)
        seen = on[None] & behind & (far <= mixer.window)
        age = far if mixer.local_positions else place[:, None] - place
        last = mixer.bias.reach - 1
        first = 0 if mixer.causal else -last
        bias = mixer.bias.table[age.clamp(first, last) - first]
        scores = q[row] @ k[row].T
        if mixer.attention == "softmax":
            weights = (scores / 2 + bias).masked_fill(~seen, -1e30).softmax(-1)
        else:
            size = mixer.window if mixer.causal else 2 * mixer.window
            weights = ((scores / size + bias).clamp(min=0) ** 2).masked_fill(~seen, 0)
        unit = mixer.from_unit(weights @ v[row] * r[row])
        outputs.append(F.silu(hx[row] + torch.where(on, p[row], 0)[:, None] * unit + x[row]))
    return torch.stack(outputs)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", [{}, {"attention": "relu2", "local_positions": True}])
def test_it_is_masked_attention_over_the_activated_tokens(options, bidirectional):
    mixer = prepared(SeqBoat(8, **SMALL, max_positions=6, bidirectional=bidirectional, **options))
    x = tokens(mixer, 3, 29)
    active, p = mixer.activation(x)
    logits = parts(mixer, x)[2]
    assert torch.equal(active, logits.argmax(-1) == 1)
    assert bool(((p > 0.5) == active).all())
    assert 0.1 < float(active.double().mean()) < 0.9
    torch.testing.assert_close(mixer(x)[0], dense(mixer, x, active))


def test_with_all_tokens_active_it_is_local_attention():
    mixer = routed(prepared(SeqBoat(8, **SMALL)), 9.0)
    x = tokens(mixer, 2, 17)
    assert bool(mixer.activation(x).active.all())
    torch.testing.assert_close(mixer(x)[0], dense(mixer, x, torch.ones(2, 17, dtype=torch.bool)))


@pytest.mark.parametrize("mixer", [SeqBoat(8, **SMALL), Mega(8, 4, chunk=3), LongVQ(8, 4, window=3)])
def test_a_state_keeps_its_precision_under_autocast(mixer):
    mixer.eval()
    x = tokens(mixer, 2, 7, torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, state = mixer(x, mixer.init_state(2))
    assert [s.dtype for s in state] == [s.dtype for s in mixer.init_state(2)]


@pytest.mark.parametrize("bias", [-9.0, 0.0])
def test_with_no_token_active_only_the_linear_branch_is_left(bias):
    """A tie activates nothing: argmax takes the first of two that are equal."""
    mixer = routed(prepared(SeqBoat(8, **SMALL)), bias)
    x = tokens(mixer, 2, 17)
    y, state = mixer(x)
    torch.testing.assert_close(y, F.silu(parts(mixer, x)[1] + x))
    assert not state.active.any()
    assert bool((state.seen == 17).all())
    y.sum().backward()
    # What is not activated teaches the router nothing.
    assert bool((mixer.to_router.weight.grad[:2] == 0).all())


def test_the_router_learns_through_the_probability():
    mixer = prepared(SeqBoat(8, **SMALL))
    x = tokens(mixer, 2, 17)
    (mixer(x)[0] ** 2).sum().backward()
    got = float(mixer.theta.grad)
    losses = []
    for move in (-1e-6, 1e-6):
        with torch.no_grad():
            mixer.theta += move
            losses.append(float((mixer(x)[0] ** 2).sum()))
            mixer.theta -= move
    assert got == pytest.approx((losses[1] - losses[0]) / 2e-6, rel=1e-5)
    assert got != 0


@pytest.mark.parametrize("options", [{"attention": "relu2", "window": 2}, {"local_positions": True}])
def test_the_contract_in_other_forms(options):
    mixer = SeqBoat(8, **{**SMALL, **options})
    assert 0 < float(prepared(mixer).activation(tokens(mixer, 3, 13)).active.double().mean()) < 1
    check_mixer(mixer)


@pytest.mark.parametrize("options", [{}, {"attention": "relu2", "local_positions": True}])
def test_both_directions(options):
    check_noncausal(SeqBoat(8, **SMALL, bidirectional=True, **options), 13)


def test_a_later_token_changes_nothing_before_it_however_it_routes():
    mixer = prepared(SeqBoat(8, **SMALL))
    x = tokens(mixer, 1, 21)
    for t in range(0, 21, 4):
        changed = x.clone()
        changed[:, t:] = -3 * changed[:, t:]
        assert torch.equal(mixer.activation(changed).active[:, :t], mixer.activation(x).active[:, :t])
        torch.testing.assert_close(mixer(changed)[0][:, :t], mixer(x)[0][:, :t])


def test_an_activation_continues_from_a_state():
    mixer = prepared(SeqBoat(8, **SMALL))
    x = tokens(mixer, 2, 14)
    state = mixer(x[:, :6])[1]
    assert torch.equal(mixer.activation(x[:, 6:], state).active, mixer.activation(x).active[:, 6:])
    assert bool((mixer(x)[1].active == mixer.activation(x).active.sum(1)).all())
    assert not torch.equal(
        mixer.activation(x, warm_state(mixer, 2)).probability, mixer.activation(x).probability
    )


class Products(TorchDispatchMode):
    """Counts the elements of the results of batched products: scores and weighted sums."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default):
            self.cells += args[0].shape[0] * args[0].shape[1] * args[1].shape[2]
        return result


def test_attention_costs_what_is_activated():
    """Scores are one window of queries by two of keys for each full block of activated tokens."""
    mixer = SeqBoat(8, d_state=4, d_query=4, d_value=8, window=8, temperature=0.1).double().eval()
    with torch.no_grad():
        mixer.ema.gamma.zero_()
        mixer.ema.omega.fill_(1)
        mixer.to_router.weight[:2] = 0
        mixer.to_router.weight[1, 0] = 1.0
    x = torch.zeros(1, 256, 8, dtype=torch.float64)
    cost = {}
    for count in (0, 8, 64, 256):
        x[..., 0] = -1.0
        x[:, torch.linspace(0, 255, count).long(), 0] = 1.0
        assert int(mixer.activation(x).active.sum()) == count
        with torch.no_grad(), Products() as products:
            mixer(x)
        cost[count] = products.cells
    assert cost == {n: n // 8 * 8 * (16 + 8) for n in cost}


def test_what_cannot_be_is_refused():
    for options, said in (
        ({"attention": "laplace"}, "attention function"),
        ({"window": 0}, "window"),
        ({"temperature": 0.0}, "temperature"),
    ):
        with pytest.raises(ValueError, match=said):
            SeqBoat(8, **options)
