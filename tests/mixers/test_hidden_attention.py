"""The matrix that a recurrence is for an input, and what its state keeps: against definitions in small."""

import pytest
import torch
from torch import Tensor

from hippodrome.mixers._memories import RULES
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.base import Mixer
from hippodrome.mixers.gated_delta_net import GatedDeltaNet
from hippodrome.mixers.gla import GatedLinearAttention
from hippodrome.mixers.gru import GRU
from hippodrome.mixers.linear_attention import LinearAttention
from hippodrome.mixers.mamba import Mamba, State
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.mixture_of_mamba import MixtureOfMamba
from hippodrome.mixers.mlstm import MLSTM
from hippodrome.mixers.mom import MixtureOfMemories
from hippodrome.mixers.retention import Retention
from hippodrome.mixers.rg_lru import RGLRU

T = 7


def prepared(mixer: Mixer) -> tuple[Mixer, Tensor, Tensor]:
    torch.manual_seed(0)
    for parameter in mixer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    resets = torch.zeros(2, T, dtype=torch.bool)
    resets[1, 4] = True
    return mixer.double(), torch.randn(2, T, mixer.d_model, dtype=torch.float64), resets


def reads_back(M: Tensor, v: Tensor) -> Tensor:
    """What heads read of values, after what every map of a causal layer with a reset is held to."""
    b, t, heads, _ = v.shape
    assert M.shape == (b, heads, t, t)
    assert not M.triu(1).any()
    assert not M[1, :, 4:, :4].any()
    return torch.einsum("bhij,bjhv->bihv", M, v)


@pytest.mark.parametrize(
    "mixer",
    [
        GatedLinearAttention(8, 2, 3),
        GatedLinearAttention(8, 2, 3, tied_keys=True),
        GatedDeltaNet(8, 2, 3),
        GatedDeltaNet(8, 2, gated=False),
        LinearAttention(8, 2),
        LinearAttention(8, 2, features="identity", normalize=False),
    ],
)
@torch.no_grad()
def test_a_matrix_state_reads_its_values_by_its_hidden_attention(mixer: GatedLinearAttention) -> None:
    _, x, resets = prepared(mixer)
    M = mixer.hidden_attention(x, resets)
    drive = mixer._driven(x, resets)
    y, _ = mixer.scan(drive, None, resets)
    v = drive.v[..., : y.shape[-1]]  # without the normalizer's
    torch.testing.assert_close(reads_back(M, v), y)
    assert M[0, :, 4:, :4].all()


@torch.no_grad()
def test_normalized_linear_attention_gives_weights_and_forgets_nothing() -> None:
    mixer, x, resets = prepared(LinearAttention(8, 2))
    M = mixer.hidden_attention(x, resets)
    torch.testing.assert_close(M.sum(-1), torch.ones_like(M[..., 0]), atol=1e-5, rtol=0)
    assert mixer.log_decays(x).shape == (2, T, 2)
    assert not mixer.log_decays(x).any()


@pytest.mark.parametrize("rope", [True, False])
@torch.no_grad()
def test_retention_reads_by_turned_queries_that_fade(rope: bool) -> None:
    mixer, x, resets = prepared(Retention(8, 2, rope=rope))
    M = mixer.hidden_attention(x, resets)
    _, _, v, gate = mixer._project(x, torch.zeros(2, T, dtype=torch.int64))
    torch.testing.assert_close(mixer._leave(reads_back(M, v), gate), mixer(x, resets=resets)[0])
    rates = torch.tensor([31 / 32, 63 / 64], dtype=torch.float64).log()
    torch.testing.assert_close(mixer.log_decays(x), rates.expand(2, T, 2))


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
@torch.no_grad()
def test_mlstm_reads_by_gates_over_its_normalizer(forget: str) -> None:
    mixer, x, resets = prepared(MLSTM(8, heads=2, expand=1, forget=forget))
    M = mixer.hidden_attention(x, resets)
    inner, z = mixer.in_proj(x).chunk(2, -1)
    c, _ = mixer.conv(inner, None, resets)
    read = reads_back(M, mixer._cell(inner, c).v)
    torch.testing.assert_close(mixer._leave(read, c, z), mixer(x, resets=resets)[0])
    cell = mixer._driven(x, None)
    q, k, logs = cell.q, cell.k, mixer.log_decays(x)
    total = logs.cumsum(1)
    weight = torch.einsum("bihk,bjhk->bhij", q, k) * torch.exp(
        (total[:, :, None] - total[:, None] + cell.log_input[:, None]).permute(0, 3, 1, 2)
    )
    weight = weight.tril()
    expected = weight / weight.sum(-1, keepdim=True).abs().clamp(min=1)
    torch.testing.assert_close(mixer.hidden_attention(x), expected)


@pytest.mark.parametrize("rule", RULES)
@torch.no_grad()
def test_each_memory_of_a_mixture_reads_its_own_values(rule: str) -> None:
    mixer, x, resets = prepared(MixtureOfMemories(8, rule, 3, 2, heads=2, head_dim=2, gate_rank=3, taps=0))
    M = mixer.hidden_attention(x, resets).unflatten(1, (4, 2))
    gate = mixer.in_proj(x)[..., 4:]
    read = 0.0
    for m, own in enumerate(mixer.kv_proj):
        v = own(x)[..., mixer.own[0] :][..., :4].unflatten(-1, (2, 2))
        read = read + reads_back(M[:, m], v)
    torch.testing.assert_close(mixer._leave(read, gate), mixer(x, resets=resets)[0])
    chosen = torch.nn.functional.pad(mixer.route(x).chosen, (0, 1), value=True).transpose(1, 2)
    both = chosen[:, :, None, :, None] & chosen[:, :, None, None]
    assert not M.masked_fill(both, 0.0).any()
    if rule == "delta":
        with pytest.raises(ValueError, match="only a gated one"):
            mixer.log_decays(x)
        return
    logs = mixer.log_decays(x).unflatten(-1, (4, -1)).transpose(1, 2)
    assert not logs[~chosen].any()
    assert (logs[chosen] < 0).all() == (rule != "linear")
    # Of a state that was there before, each memory keeps what its logarithms say.
    if rule in ("retention", "mamba2"):
        empty = mixer.init_state(2)
        start = empty._replace(S=torch.ones_like(empty.S))
        left = (mixer(x, start)[1].S - mixer(x)[1].S)[..., 0, 0]
        torch.testing.assert_close(logs.sum(2).exp(), left)


@torch.no_grad()
def test_the_hidden_attention_of_gla_is_its_decays_between_query_and_key() -> None:
    mixer, x, _ = prepared(GatedLinearAttention(8, 2, 3))
    q, k, _, decay = mixer._driven(x, None)
    total = decay.cumsum(1)
    M = mixer.hidden_attention(x)
    for i in range(T):
        for j in range(i + 1):
            weight = (q[:, i] * torch.exp(total[:, i] - total[:, j]) * k[:, j]).sum(-1)
            torch.testing.assert_close(M[:, :, i, j], weight)
    torch.testing.assert_close(mixer.log_decays(x), decay.flatten(2))


@pytest.mark.parametrize("mixer", [RGLRU(6), MinGRU(6)])
@torch.no_grad()
def test_a_diagonal_recurrence_keeps_the_product_of_its_decays(mixer: RGLRU) -> None:
    _, x, resets = prepared(mixer)
    M, logs = mixer.hidden_attention(x, resets), mixer.log_decays(x)
    assert logs.shape == (2, T, 6)
    total = logs.cumsum(1).transpose(1, 2)
    expected = torch.exp(total[:, :, :, None] - total[:, :, None]).tril()
    torch.testing.assert_close(M[0], expected[0])
    torch.testing.assert_close(M[1, :, :4, :4], expected[1, :, :4, :4])
    assert not M[1, :, 4:, :4].any()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 3},
        {"rope": False, "kv_heads": 2},
        {"heads": 3, "head_dim": 6, "scale": 0.3, "rope_share": 0.7, "bias": True},
        {"head_dim": 2, "scale": 1.5, "mixed": False},
    ],
)
@torch.no_grad()
def test_of_attention_it_is_the_softmax(options: dict) -> None:
    mixer, x, resets = prepared(Attention(8, **{"heads": 4, **options}))
    M = mixer.hidden_attention(x, resets)
    torch.testing.assert_close(M.sum(-1), torch.ones_like(M[..., 0]))
    v = mixer.in_proj(x).unflatten(-1, (-1, mixer.size))[:, :, mixer.heads + mixer.kv_heads :]
    read = reads_back(M, v.repeat_interleave(mixer.heads // mixer.kv_heads, 2)).flatten(2)
    torch.testing.assert_close(mixer.out_proj(read), mixer(x, resets=resets)[0])


def test_what_has_none_says_so() -> None:
    x = torch.zeros(1, 3, 8)
    for call in (GRU(8).hidden_attention, GRU(8).log_decays):
        with pytest.raises(ValueError, match=r"made from the tokens"):
            call(x)
    with pytest.raises(ValueError, match="only a gated one"):
        GatedDeltaNet(8, 2, gated=False).log_decays(x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"A_init": "s4d-lin"},
        {"groups": 2, "norms": "learned"},
        {"select_B": False},
        {"dynamics": "positive"},
    ],
)
@torch.no_grad()
def test_mamba_reads_its_channels_by_its_hidden_attention(options: dict) -> None:
    mixer, x, resets = prepared(Mamba(8, d_state=4, **options))
    M = mixer.hidden_attention(x, resets)
    assert M.shape == (2, 16, T, T)
    inner, z = mixer.in_proj(x).chunk(2, -1)
    inner, _ = mixer.conv1d(inner, None, resets)
    y = torch.einsum("beij,bje->bie", M, inner) + mixer.D * inner
    torch.testing.assert_close(mixer.out_proj(y * torch.nn.functional.silu(z)), mixer(x, resets=resets)[0])
    assert not M.triu(1).any()
    assert not M[1, :, 4:, :4].any()
    _, state = mixer(x)
    start = State(torch.zeros_like(state.window), torch.ones_like(state.h))
    left = (mixer(x, start)[1].h - mixer(x)[1].h).flatten(1)
    if "A_init" not in options:
        torch.testing.assert_close(mixer.log_decays(x).sum(1).exp(), left)


@torch.no_grad()
def test_mixture_of_mamba_with_one_modality_has_mambas() -> None:
    mixer, x, resets = prepared(MixtureOfMamba(8, modalities=1, d_state=4))
    plain = Mamba(8, d_state=4).double()
    plain.load_state_dict({k.replace("_proj.0.", "_proj."): v for k, v in mixer.state_dict().items()})
    torch.testing.assert_close(mixer.hidden_attention(x, resets), plain.hidden_attention(x, resets))
    torch.testing.assert_close(mixer.log_decays(x), plain.log_decays(x))
