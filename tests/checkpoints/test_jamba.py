"""Jamba checkpoints beside transformers: dense and with experts, every field that changes the model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints._layouts import check_layout, check_logits, moved, saved

from hippodrome import checkpoints

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")


def jamba(size: float = 0.15, **more: Any) -> Any:
    config = transformers.JambaConfig(
        **{
            "vocab_size": 24,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "num_experts": 4,
            "mamba_d_state": 5,
            **more,
        }
    )
    return moved(transformers.JambaForCausalLM(config), size)


def test_with_experts(tmp_path: Path) -> None:
    run = check_layout(jamba(), tmp_path, "model.layers.3.feed_forward.experts.2.up_proj.weight")
    blocks = run.spec["backbone"]["blocks"]
    assert [block["mixer"]["kind"] for block in blocks[:6]] == [
        "mamba",
        "mlp",
        "mamba",
        "moe",
        "attention",
        "mlp",
    ]
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


def test_a_second_call_goes_on_where_theirs_begins_anew(tmp_path: Path) -> None:
    # The package restarts Mamba from zero when a filled cache meets several tokens.
    theirs = jamba()
    run = checkpoints.open_model(saved(theirs, tmp_path / "theirs"))
    ids = torch.randint(3, 24, (1, 12), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        _, state = run.model(ids[:, :6])
        rest = run.model(ids[:, 6:], state)[0]
        torch.testing.assert_close(
            rest, run.model(ids)[0][:, 6:], rtol=0, atol=1e-5 * float(rest.abs().max())
        )


def test_half_precision_and_parts(tmp_path: Path) -> None:
    theirs = jamba().to(torch.bfloat16)
    source = saved(theirs, tmp_path / "theirs", max_shard_size="20KB")
    assert len(list(source.glob("model-*.safetensors"))) > 2
    check_logits(checkpoints.open_model(source, dtype="float32"), theirs.float())


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    source = saved(jamba(), tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    for change, said in (
        ({"hidden_act": "gelu"}, "hidden_act 'silu'; this one's is 'gelu'"),
        ({"attn_layer_offset": 4}, "attn_layer_offset is below attn_layer_period; got 4 and 4"),
        ({"expert_layer_offset": -1}, "expert_layer_offset is a whole number from 0 on; got -1"),
        ({"num_key_value_heads": "two"}, "num_key_value_heads is a whole number"),
        ({"intermediate_size": 25}, r"up_proj.weight has shape \(24, 16\), config.json asks for \(25, 16\)"),
        ({"num_experts": 5}, "experts.4.down_proj.weight is missing"),
        ({"num_experts": 3}, "experts.3.down_proj.weight is not known"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            checkpoints.open_model(source)
