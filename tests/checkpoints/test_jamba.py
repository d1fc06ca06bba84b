"""Jamba checkpoints beside transformers: dense and with experts, every field that changes the model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints._layouts import check_layout, close, full, ids_of, moved, saved

from hippodrome import checkpoints

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")


def jamba(size: float = 0.15, **more: Any) -> Any:
    config = transformers.JambaConfig(
        **{
            "vocab_size": 24,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "attn_layer_period": 3,
            "attn_layer_offset": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "mamba_d_state": 5,
            **more,
        }
    )
    return moved(transformers.JambaForCausalLM(config), size)


def test_with_experts(tmp_path: Path) -> None:
    run = check_layout(jamba(), tmp_path, "model.layers.1.feed_forward.experts.2.up_proj.weight")
    blocks = run.spec["backbone"]["blocks"]
    kinds = [block["mixer"]["kind"] for block in blocks]
    assert kinds == ["mamba", "mlp", "mamba", "moe", "attention", "mlp"]
    assert {block["norm_eps"] for block in blocks} == {1e-6}
    assert blocks[0]["mixer"]["dt_rank"] == 1


def test_dense_with_biases_and_a_tied_head(tmp_path: Path) -> None:
    theirs = jamba(
        0.5,
        num_hidden_layers=3,
        num_experts=1,
        attn_layer_period=2,
        attn_layer_offset=0,
        mamba_proj_bias=True,
        mamba_conv_bias=False,
        mamba_dt_rank=3,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        rms_norm_eps=1e-3,
    )
    run = check_layout(theirs, tmp_path, "model.layers.0.self_attn.v_proj.weight")
    assert run.spec["tie"]
    assert run.spec["backbone"]["blocks"][0]["mixer"]["kv_heads"] == 4


@torch.no_grad()
def test_half_precision_in_parts_and_a_second_call_that_goes_on(tmp_path: Path) -> None:
    theirs = jamba().to(torch.bfloat16)
    source = saved(theirs, tmp_path / "theirs", max_shard_size="12KB")
    assert len(list(source.glob("model-*.safetensors"))) > 2
    model = checkpoints.open_model(source, dtype="float32").model
    ids = ids_of(24)
    expected = full(theirs.float(), ids)
    close(model(ids)[0], expected)
    # Several tokens after a filled cache restart Mamba from zero in the package, which shows in the logits.
    state = model(ids[:, :6])[1]
    close(model(ids[:, 6:], state)[0], expected[:, 6:])
    anew = model.init_state(2)
    anew = tuple(s if i == 4 else a for i, (s, a) in enumerate(zip(state, anew, strict=True)))
    assert (model(ids[:, 6:], anew)[0] - expected[:, 6:]).abs().max() > 0.01


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    source = saved(jamba(), tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    for change, said in (
        ({"hidden_act": "gelu"}, "hidden_act 'silu'; this one's is 'gelu'"),
        ({"attn_layer_offset": 3}, "attn_layer_offset is below attn_layer_period; got 3 and 3"),
        ({"expert_layer_offset": -1}, "expert_layer_offset is a whole number from 0 on; got -1"),
        ({"num_key_value_heads": "two"}, "num_key_value_heads is a whole number"),
        ({"intermediate_size": 25}, r"up_proj.weight has shape \(24, 16\), config.json asks for \(25, 16\)"),
        ({"num_experts": 5}, "experts.4.down_proj.weight is missing"),
        ({"num_experts": 3}, "experts.3.down_proj.weight is not known"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            checkpoints.open_model(source)
