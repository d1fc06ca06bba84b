"""Granite 4 checkpoints beside transformers: factors, mixtures and what all share, positions or none."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints._layouts import check_layout, check_logits, moved, saved

from hippodrome import checkpoints

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")


def granite(**more: Any) -> Any:
    config = transformers.GraniteMoeHybridConfig(
        **{
            "vocab_size": 24,
            "hidden_size": 16,
            "intermediate_size": 12,
            "shared_intermediate_size": 20,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "layer_types": ["mamba", "attention", "mamba"],
            "num_local_experts": 4,
            "mamba_n_heads": 4,
            "mamba_d_state": 6,
            "mamba_chunk_size": 8,
            "embedding_multiplier": 12,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.2,
            "logits_scaling": 0.25,
            **more,
        }
    )
    return moved(transformers.GraniteMoeHybridForCausalLM(config))


def test_a_mixture_and_a_perceptron_beside_it(tmp_path: Path) -> None:
    run = check_layout(granite(), tmp_path, "model.layers.1.block_sparse_moe.input_linear.weight")
    first, channels, second, *_ = run.spec["backbone"]["blocks"]
    assert [b["mixer"]["kind"] for b in (first, channels, second)] == ["mamba2", "moe", "attention"]
    assert (channels["mixer"]["d_hidden"], channels["mixer"]["shared"]) == (12, 20)
    assert (second["mixer"]["rope"], second["mixer"]["scale"]) == (False, 0.2)
    assert {b["scale"] for b in run.spec["backbone"]["blocks"]} == {0.22}
    assert (run.spec["embedding_scale"], run.spec["logit_scale"]) == (12.0, 4.0)


def test_perceptrons_alone_positions_groups_and_every_bias(tmp_path: Path) -> None:
    theirs = granite(
        num_local_experts=0,
        position_embedding_type="rope",
        rope_parameters={"rope_type": "default", "rope_theta": 50.0},
        attention_bias=True,
        mamba_proj_bias=True,
        mamba_conv_bias=False,
        mamba_n_groups=2,
        time_step_limit=(0.05, 0.4),
        rms_norm_eps=1e-3,
        layer_types=["attention", "mamba", "attention"],
        num_key_value_heads=2,
        tie_word_embeddings=True,
        embedding_multiplier=0.5,
        residual_multiplier=1.5,
    )
    run = check_layout(theirs, tmp_path, "model.layers.0.self_attn.q_proj.bias")
    blocks = run.spec["backbone"]["blocks"]
    assert blocks[1]["mixer"]["kind"] == "mlp"
    assert blocks[0]["mixer"]["rope_base"] == 50.0
    assert (blocks[2]["mixer"]["dt_low"], blocks[2]["mixer"]["dt_high"]) == (0.05, 0.4)
    # The released files call having no positions "nope", and layers as they were called before.
    path = tmp_path / "theirs" / "config.json"
    config = json.loads(path.read_text())
    old = {**config, "position_embedding_type": "nope", "layer_types": ["attention", "mamba", "attention"]}
    path.write_text(json.dumps(old))
    run = checkpoints.open_model(tmp_path / "theirs")
    assert run.spec["backbone"]["blocks"][0]["mixer"]["rope"] is False
    check_logits(run, transformers.GraniteMoeHybridForCausalLM.from_pretrained(tmp_path / "theirs").eval())


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    source = saved(granite(), tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    for change, said in (
        (
            {"layer_types": ["mamba", "attention"]},
            "full_attention, one for each of the 3 layers; got",
        ),
        ({"layer_types": ["mamba", "mlp", "mamba"]}, "one for each of the 3 layers; got .*'mlp'"),
        ({"layer_types": [["mamba"], "mamba", "mamba"]}, "one for each of the 3 layers; got"),
        ({"logits_scaling": 0}, "logits_scaling is a number above zero; got 0.0"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type None or 'nope' or 'rope'"),
        ({"mamba_d_head": 4}, "got 4 times 4, and 32"),
        ({"hidden_act": "gelu"}, "hidden_act 'silu'"),
        ({"num_local_experts": 3}, "block_sparse_moe.input_linear.weight has shape"),
        ({"num_local_experts": -1}, "num_local_experts is a whole number from 0 on"),
        ({"num_local_experts": 0}, "block_sparse_moe.input_linear.weight is not known"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            checkpoints.open_model(source)
