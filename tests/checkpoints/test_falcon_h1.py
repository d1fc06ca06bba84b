"""Falcon-H1 checkpoints beside transformers: mixers side by side, every factor apart from one, every bias."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints._layouts import check_layout, moved, saved

from hippodrome import checkpoints

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")

FACTORS = {
    "embedding_multiplier": 5.65,
    "lm_head_multiplier": 0.39,
    "key_multiplier": 0.7,
    "attention_in_multiplier": 1.2,
    "attention_out_multiplier": 0.9,
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.35,
    "ssm_multipliers": [0.5, 0.25, 0.6, 2.0, 0.7],
    "mlp_multipliers": [0.88, 0.59],
}


def falcon(size: float = 0.15, **more: Any) -> Any:
    config = transformers.FalconH1Config(
        **{
            "vocab_size": 24,
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "mamba_d_ssm": 24,
            "mamba_n_heads": 4,
            "mamba_d_state": 6,
            "mamba_n_groups": 2,
            "mamba_chunk_size": 8,
            **FACTORS,
            **more,
        }
    )
    return moved(transformers.FalconH1ForCausalLM(config), size)


def test_as_released(tmp_path: Path) -> None:
    run = check_layout(falcon(), tmp_path, "model.layers.1.mamba.in_proj.weight")
    both, perceptron, *_ = run.spec["backbone"]["blocks"]
    ssm, attention = both["mixer"]["mixers"]
    assert (both["mixer"]["kind"], both["scale"], perceptron["scale"]) == ("parallel", 1.0, 0.59)
    assert (ssm["kind"], ssm["norm"], ssm["d_inner"]) == ("mamba2", False, 24)
    # What stands before Mamba-2's first map is told behind it: one product less.
    assert both["mixer"]["scales_in"] == [1.0, 1.2]
    assert ssm["in_scales"] == [0.625, 0.3125, 0.75, 2.5, 0.875]
    assert attention["scale"] == 0.7 * 8**-0.5


@pytest.mark.parametrize("before", [True, False])
def test_a_norm_before_and_behind_the_gate_and_every_bias(before: bool, tmp_path: Path) -> None:
    theirs = falcon(
        0.15 if before else 0.35,
        mamba_rms_norm=True,
        mamba_norm_before_gate=before,
        mamba_proj_bias=before,
        projectors_bias=before,
        attention_bias=True,
        mlp_bias=True,
        mamba_conv_bias=False,
        mamba_d_ssm=None,
        num_key_value_heads=2,
        head_dim=6,
        rms_norm_eps=1e-3,
        time_step_limit=(0.05, 0.4),
        tie_word_embeddings=not before,
        embedding_multiplier=0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0},
    )
    run = check_layout(theirs, tmp_path, "model.layers.0.mamba.norm.weight")
    ssm, attention = run.spec["backbone"]["blocks"][2]["mixer"]["mixers"]
    assert (ssm["norm_before_gate"], ssm["dt_high"], attention["head_dim"]) == (before, 0.4, 6)
    assert (ssm["in_scales"][0] == 0.5) == before


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    source = saved(falcon(), tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    for change, said in (
        ({"ssm_multipliers": [1.0, 2.0]}, "ssm_multipliers are 5 numbers; got \\[1.0, 2.0\\]"),
        ({"mlp_multipliers": ["a", 1.0]}, "mlp_multipliers are 2 numbers"),
        ({"projectors_bias": True}, "projectors_bias and mamba_proj_bias are alike"),
        ({"mamba_d_ssm": 20}, "mamba_n_heads times mamba_d_head equal to mamba_d_ssm; got 4 times 6, and 20"),
        ({"hidden_act": "gelu"}, "hidden_act 'silu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "scales them \\('yarn'\\)"),
        ({"mamba_rms_norm": True}, "model.layers.0.mamba.norm.weight is missing"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            checkpoints.open_model(source)
