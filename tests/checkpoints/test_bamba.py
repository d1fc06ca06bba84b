"""Bamba checkpoints beside transformers: positions of half of the channels, biases, bounds, the state."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints._layouts import check_layout, check_logits, full, moved, saved

from hippodrome import checkpoints

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")


def bamba(**more: Any) -> Any:
    config = transformers.BambaConfig(
        **{
            "vocab_size": 24,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "attn_layer_indices": [1],
            "mamba_n_heads": 4,
            "mamba_d_state": 6,
            "mamba_n_groups": 2,
            "mamba_chunk_size": 8,
            "pad_token_id": None,
            **more,
        }
    )
    return moved(transformers.BambaForCausalLM(config))


def test_as_released(tmp_path: Path) -> None:
    run = check_layout(bamba(), tmp_path, "model.layers.1.self_attn.k_proj.weight")
    first, second, _ = run.spec["backbone"]["blocks"]
    assert second["mixer"]["rope_share"] == 0.5
    # The class says 256 where a file says nothing; the released file says 128, and the file holds.
    assert first["mixer"]["d_state"] == 6
    path = tmp_path / "theirs" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "mamba_d_state"}))
    with pytest.raises(ValueError, match=r"conv1d.bias has shape \(56,\), config.json asks for \(1056,\)"):
        checkpoints.open_model(tmp_path / "theirs")


def test_every_bias_bounds_of_step_sizes_and_other_positions(tmp_path: Path) -> None:
    theirs = bamba(
        attention_bias=True,
        mlp_bias=True,
        mamba_proj_bias=True,
        mamba_conv_bias=False,
        time_step_limit=(0.05, 0.4),
        rms_norm_eps=1e-3,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.25},
        attn_layer_indices=[0, 2],
    )
    run = check_layout(theirs, tmp_path, "model.layers.2.self_attn.q_proj.bias")
    blocks = run.spec["backbone"]["blocks"]
    assert (blocks[1]["mixer"]["dt_low"], blocks[1]["mixer"]["dt_high"]) == (0.05, 0.4)
    assert blocks[0]["mixer"]["rope_base"] == 50.0
    # Before there was a table of positions, their base stood by itself.
    path = tmp_path / "theirs" / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    path.write_text(json.dumps({**config, "rope_theta": 50.0, "rope_scaling": None}))
    older = checkpoints.open_model(tmp_path / "theirs").spec["backbone"]["blocks"][0]["mixer"]
    assert (older["rope_base"], older["rope_share"]) == (50.0, 0.5)


def test_positions_count_from_the_start_of_each_row(tmp_path: Path) -> None:
    # The package counts from zero again in a call with a cache and no position ids.
    theirs = bamba(num_hidden_layers=2, attn_layer_indices=[0, 1])
    run = checkpoints.open_model(saved(theirs, tmp_path / "theirs"))
    ids = torch.randint(3, 24, (1, 12), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        state = run.model(ids[:, :11])[1]
        got = run.model(ids[:, 11:], state)[0][:, 0]
    expected = full(theirs, ids)[:, -1]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_no_attention_at_all(tmp_path: Path) -> None:
    theirs = bamba(num_hidden_layers=2, attn_layer_indices=None)
    check_logits(checkpoints.open_model(saved(theirs, tmp_path / "theirs")), theirs)


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    source = saved(bamba(), tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    for change, said in (
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "scales them \\('yarn'\\)"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope_scaling of this one scales"),
        ({"attn_layer_indices": [3]}, "numbers of layers below 3; got \\[3\\]"),
        ({"mamba_d_head": 4}, "got 4 times 4, and 32"),
        ({"hidden_act": "gelu"}, "hidden_act 'silu'"),
        ({"attn_layer_indices": [2]}, "model.layers.1.mamba.A_log is missing"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            checkpoints.open_model(source)
