"""RecurrentGemma checkpoints beside transformers: gates in blocks, first tokens, windows, scales, the cap."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints._layouts import check_layout, check_logits, full, ids_of, moved, saved

from hippodrome import checkpoints

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")


def gemma(size: float = 0.4, **more: Any) -> Any:
    # Smaller weights leave a tied model saying the token that it reads over and over.
    config = transformers.RecurrentGemmaConfig(
        **{
            "vocab_size": 24,
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "lru_width": 24,
            "attention_window_size": 5,
            "logits_soft_cap": 3.0,
            **more,
        }
    )
    return moved(transformers.RecurrentGemmaForCausalLM(config), size)


def test_as_released(tmp_path: Path) -> None:
    theirs = gemma()
    run = check_layout(theirs, tmp_path, "model.layers.1.temporal_block.rg_lru.recurrent_gate_weight")
    first, _, _, _, third, perceptron = run.spec["backbone"]["blocks"]
    assert (first["mixer"]["kind"], first["norm"], first["norm_eps"]) == ("rg_lru", "rms1", 1e-6)
    assert (third["mixer"]["window"], third["mixer"]["rope_share"]) == (5, 0.5)
    assert perceptron["mixer"]["d_hidden"] == 24  # half of what the file says
    assert run.spec["embedding_scale"] == 4.0
    assert run.model.backbone.blocks[0].mixer.Lambda.allclose(
        -theirs.model.layers[0].temporal_block.rg_lru.recurrent_param
    )
    # The cap is felt: no logit is above it, and some come close.
    assert 2.9 < float(full(theirs, ids_of(24)).abs().max()) < 3.0


def test_another_order_every_bias_a_head_of_its_own_and_a_root_that_is_rounded(tmp_path: Path) -> None:
    theirs = gemma(
        0.15,
        block_types=["attention", "recurrent"],
        num_hidden_layers=3,
        hidden_size=20,
        lru_width=None,
        attention_bias=True,
        num_key_value_heads=None,
        hidden_activation="gelu",
        tie_word_embeddings=False,
        rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.2},
    )
    run = check_layout(theirs, tmp_path, "model.layers.0.temporal_block.q_proj.bias")
    assert [b["mixer"]["kind"] for b in run.spec["backbone"]["blocks"]][::2] == [
        "attention",
        "rg_lru",
        "attention",
    ]
    # 20 has the root 4.472; in bfloat16 it is 4.46875, and so it is there in float32 too.
    assert run.spec["embedding_scale"] == 4.46875
    # Before there was a table of positions, base and share stood by themselves.
    path = tmp_path / "theirs" / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    path.write_text(json.dumps({**config, "rope_theta": 50.0, "partial_rotary_factor": 0.2}))
    check_logits(checkpoints.open_model(tmp_path / "theirs"), theirs)


def test_half_precision_keeps_what_decides_in_full(tmp_path: Path) -> None:
    theirs = gemma().to(torch.bfloat16)
    run = checkpoints.open_model(saved(theirs, tmp_path / "theirs"))
    ids = ids_of(24)
    with torch.no_grad():
        got, state = run.model(ids)
        expected = full(theirs, ids).float()
        exact = full(theirs.float(), ids)
    assert got.dtype == torch.bfloat16
    assert state[0].h.dtype == torch.float32
    assert (got.float() - exact).abs().mean() < 1.2 * (expected - exact).abs().mean()


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    source = saved(gemma(), tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    for change, said in (
        (
            {"block_types": ["recurrent", "mamba"]},
            "a list of recurrent, attention, one at least; got",
        ),
        ({"block_types": []}, "one at least; got \\[\\]"),
        ({"logits_soft_cap": 0.0}, "A cap of the logits is above zero; got 0.0"),
        ({"lru_width": 25}, "gate_blocks must divide the channels of the recurrence; got 2 for 25"),
        ({"hidden_activation": "tanh"}, "hidden_activation 'gelu_pytorch_tanh'"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "scales them \\('linear'\\)"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            checkpoints.open_model(source)
