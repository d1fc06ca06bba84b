"""Mamba, Mamba-2 and their descendants against the full forward of the transformers package."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers.models.bamba import modeling_bamba as bamba
from transformers.models.falcon_mamba import modeling_falcon_mamba as falcon_mamba
from transformers.models.jamba import modeling_jamba as jamba
from transformers.models.mamba import modeling_mamba as mamba
from transformers.models.mamba2 import modeling_mamba2 as mamba2
from transformers.models.nemotron_h import modeling_nemotron_h as nemotron_h
from transformers.models.zamba2 import modeling_zamba2 as zamba2

from hippodrome.mixers.base import Mixer, run_steps
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.testing.mixers import assert_equal

HEADS = {"d_state": 6, "head_dim": 4, "groups": 2, "chunk": 5}
"""Of every Mamba-2 here: 16 channels in, 32 of the recurrence in 8 heads."""


class Peer(NamedTuple):
    """A mixer of the package and ours."""

    make: Callable[..., nn.Module]
    config: Any
    ours: Mixer


def mamba_peer() -> Peer:
    config = mamba.MambaConfig(hidden_size=16, state_size=5, time_step_rank=3, num_hidden_layers=1)
    return Peer(mamba.MambaMixer, config, Mamba(16, d_state=5, dt_rank=3))


def falcon_peer() -> Peer:
    # As in the published configuration, the width is that given and not expand times the hidden size.
    config = falcon_mamba.FalconMambaConfig(
        hidden_size=16, state_size=5, time_step_rank=3, num_hidden_layers=1, expand=16, use_bias=True
    )
    config.intermediate_size = 24
    ours = Mamba(16, d_state=5, dt_rank=3, expand=16, d_inner=24, norms="weightless", proj_bias=True)
    # Its initialization runs before its norms are there, so a mixer by itself must go without.
    make = partial(falcon_mamba.FalconMambaMixer, initialize_mixer_weights=False)
    return Peer(make, config, ours)


def jamba_peer() -> Peer:
    config = jamba.JambaConfig(
        hidden_size=16, mamba_d_state=5, mamba_dt_rank=3, mamba_conv_bias=False, rms_norm_eps=1e-3
    )
    ours = Mamba(16, d_state=5, dt_rank=3, norms="learned", norm_eps=1e-3, conv_bias=False)
    return Peer(jamba.JambaMambaMixer, config, ours)


def mamba2_peer() -> Peer:
    config = mamba2.Mamba2Config(
        hidden_size=16,
        num_heads=8,
        head_dim=4,
        state_size=6,
        n_groups=2,
        chunk_size=4,
        time_step_limit=(0.1, 0.9),
        num_hidden_layers=1,
    )
    return Peer(mamba2.Mamba2Mixer, config, Mamba2(16, **HEADS, dt_low=0.1, dt_high=0.9))


def bamba_peer() -> Peer:
    config = bamba.BambaConfig(
        hidden_size=16,
        mamba_n_heads=8,
        mamba_d_head=4,
        mamba_d_state=6,
        mamba_n_groups=2,
        mamba_chunk_size=4,
        mamba_proj_bias=True,
        mamba_conv_bias=False,
        rms_norm_eps=1e-3,
        time_step_limit=(0.1, 0.9),
    )
    ours = Mamba2(
        16, **HEADS, dt_low=0.1, dt_high=0.9, proj_bias=True, conv_bias=False, norm_groups=2, norm_eps=1e-3
    )
    return Peer(bamba.BambaMixer, config, ours)


def zamba2_peer() -> Peer:
    config = zamba2.Zamba2Config(
        hidden_size=16,
        n_mamba_heads=8,
        mamba_headdim=4,
        mamba_d_state=6,
        mamba_ngroups=2,
        chunk_size=4,
        time_step_min=0.5,
        num_hidden_layers=1,
        layers_block_type=["mamba"],
    )
    return Peer(zamba2.Zamba2MambaMixer, config, Mamba2(16, **HEADS, dt_low=0.5))


def nemotron_peer() -> Peer:
    config = nemotron_h.NemotronHConfig(
        hidden_size=12,
        mamba_num_heads=8,
        mamba_head_dim=4,
        ssm_state_size=6,
        n_groups=2,
        chunk_size=4,
        time_step_min=0.5,
        use_bias=True,
        layers_block_type=["mamba"],
    )
    # Its width is that of the heads, whatever the hidden size.
    return Peer(
        nemotron_h.NemotronHMamba2Mixer, config, Mamba2(12, **HEADS, d_inner=32, dt_low=0.5, proj_bias=True)
    )


PEERS = [mamba_peer, falcon_peer, jamba_peer, mamba2_peer, bamba_peer, zamba2_peer, nemotron_peer]


@pytest.fixture(params=PEERS, ids=lambda f: f.__name__.removesuffix("_peer"))
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Mixer]:
    """A mixer of the package in evaluation mode and ours, of the same random weights."""
    make, config, ours = request.param()
    theirs = make(config, layer_idx=0).eval()
    r = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=r))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours.eval()


def inputs(mixer: Mixer, t: int = 11) -> Tensor:
    return torch.randn(2, t, mixer.d_model, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_all_our_forms_equal_its_full_forward(pair: tuple[nn.Module, Mixer]) -> None:
    theirs, ours = pair
    x = inputs(ours)
    expected = theirs(x)
    y, last = ours(x)
    assert_equal(y, expected, "forward")
    assert_equal(run_steps(ours, x)[0], expected, "repeated step")
    state = ours.init_state(2)
    own = torch.stack([ours.advance_(x[:, t], state) for t in range(x.shape[1])], 1)
    assert_equal(own, expected, "repeated advance_")
    assert_equal(state[1], last[1], "the state that advance_ leaves")
    state, pieces = None, []
    for piece in x.split([3, 1, 5, 2], 1):
        y, state = ours(piece, state)
        pieces.append(y)
    assert_equal(torch.cat(pieces, 1), expected, "chunks")


@torch.no_grad()
def test_padding_on_either_side_is_none(pair: tuple[nn.Module, Mixer]) -> None:
    theirs, ours = pair
    x, pads = inputs(ours), 4
    expected = theirs(x)
    filled = torch.cat([inputs(ours, 4), x, inputs(ours, 4)], 1)
    resets = torch.zeros(filled.shape[:2], dtype=torch.bool)
    resets[:, pads] = True
    assert_equal(ours(filled, resets=resets)[0][:, pads:-pads], expected, "padding on both sides")
    alone, padded = ours(x)[1], ours(filled[:, :-pads], resets=resets[:, :-pads])[1]
    for a, b in zip(padded, alone, strict=True):
        assert_equal(a, b, "the state after padding on the left")
