"""Nemotron-H checkpoints beside transformers: perceptrons, experts in groups, the bound below step sizes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints._layouts import check_layout, check_logits, full, ids_of, moved, saved, tensors

from hippodrome import checkpoints
from hippodrome.mixers.mamba2 import Mamba2

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")


def nemotron(pattern: str, **more: Any) -> Any:
    config = transformers.NemotronHConfig(
        **{
            "vocab_size": 24,
            "hidden_size": 16,
            "hybrid_override_pattern": pattern,
            "intermediate_size": 24,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "ssm_state_size": 6,
            "mamba_num_heads": 6,
            "mamba_head_dim": 4,
            "n_groups": 2,
            "chunk_size": 8,
            "n_routed_experts": 8,
            "moe_intermediate_size": 12,
            "moe_shared_expert_intermediate_size": 20,
            **more,
        }
    )
    theirs = moved(transformers.NemotronHForCausalLM(config))
    with torch.no_grad():
        for name, buffer in theirs.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(4))
    return theirs


def test_perceptrons_and_attention_without_positions(tmp_path: Path) -> None:
    run = check_layout(nemotron("M-*-M"), tmp_path, "backbone.layers.3.mixer.up_proj.weight")
    assert run.spec["backbone"]["blocks"][0]["mixer"]["dt_low"] == 0.001
    assert run.spec["backbone"]["blocks"][0]["mixer"]["d_inner"] == 24


def test_experts_in_groups_with_latent_channels_and_biases(tmp_path: Path) -> None:
    theirs = nemotron(
        "ME*E",
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.5,
        num_experts_per_tok=3,
        moe_latent_size=12,
        mlp_bias=True,
        use_bias=True,
        use_conv_bias=False,
        layer_norm_epsilon=1e-3,
    )
    run = check_layout(theirs, tmp_path, "backbone.layers.3.mixer.gate.e_score_correction_bias")
    assert run.model.backbone.blocks[1].mixer.moe.correction.abs().max() > 0.1


def test_experts_by_one_group_with_weights_as_they_are(tmp_path: Path) -> None:
    theirs = nemotron("E-", norm_topk_prob=False, mlp_hidden_act="gelu_new")
    check_logits(checkpoints.open_model(saved(theirs, tmp_path / "theirs")), theirs)


def test_the_bound_below_step_sizes_holds_in_the_step_too(tmp_path: Path) -> None:
    # The package's cached step forgets it. Here step sizes would be below it at most tokens.
    theirs = nemotron("M*M", time_step_min=1.0)
    run = checkpoints.open_model(saved(theirs, tmp_path / "theirs"))
    check_logits(run, theirs)
    ids = ids_of(24)
    with torch.no_grad():
        state = run.model(ids[:, :-1])[1]
        for mixer in run.model.modules():
            if isinstance(mixer, Mamba2):
                mixer.dt_low = 0.0
        unbounded = run.model.step(ids[:, -1], state)[0]
    assert (unbounded - full(theirs, ids)[:, -1]).abs().max() > 1e-3


def test_fields_by_older_names(tmp_path: Path) -> None:
    theirs = nemotron("M", time_step_min=0.5, use_conv_bias=False, conv_kernel=3, n_groups=3)
    source = saved(theirs, tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    older = {
        "mamba_dt_min": "time_step_min",
        "mamba_conv_bias": "use_conv_bias",
        "mamba_d_conv": "conv_kernel",
        "mamba_n_groups": "n_groups",
    }
    said = {old: config.pop(new) for old, new in older.items()}
    (source / "config.json").write_text(json.dumps({**config, **said}))
    check_logits(checkpoints.open_model(source), theirs)


def test_a_correction_in_float32_beside_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    theirs = nemotron("ME").to(torch.bfloat16)
    source = saved(theirs, tmp_path / "theirs")
    path, name = source / "model.safetensors", "backbone.layers.1.mixer.gate.e_score_correction_bias"
    held = load_file(path)
    held[name] = torch.randn(8, generator=torch.Generator().manual_seed(6))
    save_file({**held, "mtp.layers.0.norm.weight": torch.ones(16)}, path, metadata={"format": "pt"})
    run = checkpoints.open_model(source)
    assert run.model.backbone.blocks[1].mixer.moe.correction.dtype == torch.float32
    checkpoints.convert(source, tmp_path / "run")
    again = checkpoints.open_model(tmp_path / "run", dtype="bfloat16").model
    assert torch.equal(again.backbone.blocks[1].mixer.moe.correction, held[name])
    checkpoints.export(tmp_path / "run", tmp_path / "back")
    back = tensors(tmp_path / "back")
    assert set(back) == set(held)
    assert all(
        torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in held.items()
    )


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    source = saved(nemotron("M-E*"), tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    for change, said in (
        ({"layers_block_type": None, "hybrid_override_pattern": "M-X*"}, "E for experts; got 'M-X\\*'"),
        ({"layers_block_type": ["mamba", "mixer"]}, "layers_block_type is a list of .*'mixer'"),
        ({"layers_block_type": "M-E*"}, "layers_block_type is a list of .*; got 'M-E\\*'"),
        ({"layers_block_type": None}, "has hybrid_override_pattern; this one's has not"),
        ({"attention_bias": True}, "attention_bias False; this one's is True"),
        ({"mlp_hidden_act": "mish"}, "this one's is 'mish'"),
        ({"n_group": 3}, "groups must divide the experts; got 3 for 8"),
        (
            {"layers_block_type": ["mamba", "mlp", "moe", "mlp"]},
            "backbone.layers.3.mixer.down_proj.weight is missing",
        ),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            checkpoints.open_model(source)
