"""The matrix that a recurrence is for an input, and what its state keeps: against definitions in small."""

import pytest
import torch
from torch import Tensor

from hippodrome.mixers.attention import Attention
from hippodrome.mixers.base import Mixer
from hippodrome.mixers.gated_delta_net import GatedDeltaNet
from hippodrome.mixers.gla import GatedLinearAttention
from hippodrome.mixers.gru import GRU
from hippodrome.mixers.mamba import Mamba, State
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.mixers.mixture_of_mamba import MixtureOfMamba
from hippodrome.mixers.rg_lru import RGLRU

T = 7


def prepared(mixer: Mixer) -> tuple[Mixer, Tensor, Tensor]:
    torch.manual_seed(0)
    for parameter in mixer.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    resets = torch.zeros(2, T, dtype=torch.bool)
    resets[1, 4] = True
    return mixer.double(), torch.randn(2, T, mixer.d_model, dtype=torch.float64), resets


@pytest.mark.parametrize(
    "mixer", [GatedLinearAttention(8, 2, 3), GatedDeltaNet(8, 2, 3), GatedDeltaNet(8, 2, gated=False)]
)
@torch.no_grad()
def test_a_matrix_state_reads_its_values_by_its_hidden_attention(mixer: GatedLinearAttention) -> None:
    _, x, resets = prepared(mixer)
    M = mixer.hidden_attention(x, resets)
    assert M.shape == (2, mixer.heads, T, T)
    drive = mixer._driven(x, resets)
    y, _ = mixer.scan(drive, None, resets)
    torch.testing.assert_close(torch.einsum("bhij,bjhv->bihv", M, drive.v), y)
    assert not M.triu(1).any()
    assert not M[1, :, 4:, :4].any()
    assert M[0, :, 4:, :4].all()


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


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"rope": False, "kv_heads": 2}])
@torch.no_grad()
def test_of_attention_it_is_the_softmax(options: dict) -> None:
    mixer, x, resets = prepared(
        Attention(8, heads=2, **options) if "kv_heads" not in options else Attention(8, heads=4, **options)
    )
    M = mixer.hidden_attention(x, resets)
    torch.testing.assert_close(M.sum(-1), torch.ones_like(M[..., 0]))
    assert not M.triu(1).any()
    assert not M[1, :, 4:, :4].any()
    v = mixer.in_proj(x).unflatten(-1, (-1, mixer.size))[:, :, mixer.heads + mixer.kv_heads :]
    v = v.repeat_interleave(mixer.heads // mixer.kv_heads, 2)
    read = torch.einsum("bhij,bjhe->bihe", M, v).flatten(2)
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
