"""LongVQ: a dense oracle, the codebook, straight-through gradients, the commitment term, linear cost."""

import copy

import pytest
import torch
import torch.nn.functional as F

from hippodrome.backbones.block import Block
from hippodrome.backbones.stack import Stack
from hippodrome.mixers._gau import leave
from hippodrome.mixers.longvq import LongVQ
from hippodrome.testing.mixers import check_mixer, prepared, tokens

SMALL = {"d_state": 4, "d_query": 4, "d_value": 8, "codes": 5, "window": 3}


def keys(mixer, x):
    """Queries, keys, values and gates as the mixer sees them."""
    return mixer._project(F.silu(mixer.ema(x)[0]), x)


def dense(mixer, x, quantized=True):
    """Softmax over all pairs of tokens, one key for each, quantized or not."""
    q, k, v, gates = keys(mixer, x)
    k = mixer.quantize(k)[0] if quantized else k
    t = x.shape[1]
    age = torch.arange(t)[:, None] - torch.arange(t)
    bias = torch.where(age < mixer.window, mixer.bias.table[age.clamp(0, mixer.window - 1)], 0)
    scores = q @ k.mT / q.shape[-1] ** 0.5 + bias
    o = scores.masked_fill(age < 0, -1e30).softmax(-1) @ v
    return leave(x, o, gates, mixer.from_value)


def test_the_identity_that_makes_quantized_attention_cheap():
    """exp(Q K^T) V = exp(Q C^T) (Delta^T V) for keys that are codes."""
    mixer = prepared(LongVQ(8, **SMALL))
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(20, n, generator=g, dtype=torch.float64) for n in (4, 4, 8))
    quantized, code = mixer.quantize(k)
    totals = mixer._by_code(v, code, torch.ones(20, dtype=torch.bool), torch.float64)
    left = (q @ quantized.mT).exp() @ v
    right = (q @ mixer.codebook.mT).exp() @ totals[:, :-1]
    torch.testing.assert_close(left, right)
    assert torch.equal(totals[:, -1], torch.bincount(code, minlength=5).double())
    nearest = (k[:, None] - mixer.codebook).square().sum(-1).argmin(-1)
    assert torch.equal(code, nearest)


@pytest.mark.parametrize("window", [1, 3, 40])
def test_it_is_attention_over_quantized_keys(window):
    mixer = prepared(LongVQ(8, **{**SMALL, "window": window}))
    x = tokens(mixer, 2, 31)
    torch.testing.assert_close(mixer(x)[0], dense(mixer, x))


def test_with_a_code_for_each_key_it_is_plain_attention():
    mixer = prepared(LongVQ(8, **{**SMALL, "codes": 24}))
    x = tokens(mixer, 1, 24)
    assert not torch.allclose(mixer(x)[0], dense(mixer, x, quantized=False))
    with torch.no_grad():
        mixer.codebook.copy_(keys(mixer, x)[1][0])
    assert torch.equal(mixer.quantize(keys(mixer, x)[1])[1][0], torch.arange(24))
    torch.testing.assert_close(mixer(x)[0], dense(mixer, x, quantized=False))


@pytest.mark.parametrize("options", [{"window": 1}, {"window": 5, "codes": 2}])
def test_the_contract_in_other_forms(options):
    check_mixer(LongVQ(8, **{**SMALL, **options}))


def test_gradients_pass_straight_through():
    mixer = prepared(LongVQ(8, **SMALL))
    k = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 4, dtype=torch.float64)
    quantized, code = mixer.quantize(k)
    assert torch.equal(quantized, mixer.codebook[code])
    (quantized * weight).sum().backward()
    torch.testing.assert_close(k.grad, weight)


def test_training_moves_the_codes_to_the_mean_of_their_keys_and_evaluation_does_not():
    torch.manual_seed(0)
    mixer = LongVQ(8, **SMALL, decay=0.75).double()
    x = tokens(mixer, 2, 31)
    before = {name: b.clone() for name, b in mixer.named_buffers()}
    mixer.eval()
    mixer(x)
    assert all(torch.equal(b, before[name]) for name, b in mixer.named_buffers())
    with torch.no_grad():
        k = keys(mixer, x)[1].flatten(0, 1)
        code = mixer.quantize(k)[1]
    mixer.train()
    mixer(x)
    for c in range(5):
        mine = k[code == c]
        count = 0.75 * before["code_counts"][c] + 0.25 * len(mine)
        total = 0.75 * before["code_sums"][c] + 0.25 * mine.sum(0)
        assert mixer.code_counts[c].item() == pytest.approx(count.item())
        torch.testing.assert_close(mixer.codebook[c], total / count)
    for _ in range(200):
        mixer(torch.zeros_like(x[:, :4]))
    assert bool(mixer.codebook.isfinite().all())


def test_the_commitment_term_acts_as_if_it_were_added_to_the_loss():
    torch.manual_seed(0)
    plain, committed = (
        LongVQ(8, **SMALL, commitment=0.0).double(),
        LongVQ(8, **SMALL, commitment=0.5).double(),
    )
    committed.load_state_dict(plain.state_dict())
    x = tokens(plain, 2, 17)
    expected = torch.autograd.grad(
        plain.eval()(x)[0].square().sum() + 0.5 * plain.commitment_loss(x), plain.query_key.gamma
    )[0]
    without = torch.autograd.grad(plain(x)[0].square().sum(), plain.query_key.gamma)[0]
    got = torch.autograd.grad(committed.train()(x)[0].square().sum(), committed.query_key.gamma)[0]
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, without)


@pytest.mark.compiled
def test_compiled_training_has_the_same_gradients_and_moves_the_codes_alike():
    torch.manual_seed(0)
    mixer = LongVQ(8, **SMALL, commitment=0.5).double()
    other = copy.deepcopy(mixer)
    x = tokens(mixer, 2, 13)
    torch.compiler.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for run in (mixer, compiled):
        run(x)[0].square().sum().backward()
    for one, two in zip(mixer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    assert torch.equal(mixer.codebook, other.codebook)


def test_it_is_not_run_twice_to_save_memory():
    with pytest.raises(ValueError, match="LongVQ changes itself in training"):
        Stack([Block(LongVQ(8, **SMALL))], recompute=True)


def test_a_state_of_another_precision_is_taken_as_it_is():
    mixer = prepared(LongVQ(8, **SMALL), torch.float32)
    x = tokens(mixer, 2, 9, torch.float32)
    _, state = mixer(x)
    wide = type(state)(*(s.double() if s.is_floating_point() else s for s in state))
    for run in (mixer, lambda x, state: mixer.step(x[:, 0], state)):
        torch.testing.assert_close(run(x, wide)[0], run(x, state)[0])


def test_the_cost_is_linear_in_tokens_and_codes_and_the_state_constant():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(codes: int, length: int) -> int:
        mixer = LongVQ(8, d_state=4, d_query=4, d_value=8, codes=codes, window=16).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            mixer(torch.zeros(1, length, 8))
        return counter.get_total_flops()

    # Blocks are one more than t / w; apart from that one, twice the tokens cost twice as much.
    small, large, larger = (flops(32, t) for t in (256, 512, 1024))
    assert larger - large == 2 * (large - small)
    assert flops(96, 512) - flops(64, 512) == flops(64, 512) - flops(32, 512)
    mixer = LongVQ(8, **SMALL)
    assert [s.shape for s in mixer(torch.zeros(1, 90, 8))[1]] == [s.shape for s in mixer.init_state(1)]


def test_sums_of_many_tokens_stay_whole_under_autocast():
    mixer = LongVQ(8, **SMALL).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, state = mixer(torch.randn(1, 1001, 8))
    assert state.counts.dtype == torch.float32
    assert state.counts.sum().item() == 1001 - 3


def test_what_cannot_be_is_refused():
    for options, said in (
        ({"codes": 0}, "codes=0"),
        ({"window": 0}, "window=0"),
        ({"decay": 1.0}, "decay=1"),
    ):
        with pytest.raises(ValueError, match=said):
            LongVQ(8, **options)
