"""Zamba2 checkpoints beside transformers: shared blocks, their changes and copies, bounds of step sizes."""

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

USES = [1, 2, 4]


def zamba2(depth: int = 5, uses: list[int] = USES, **more: Any) -> Any:
    config = transformers.Zamba2Config(
        **{
            "vocab_size": 24,
            "hidden_size": 16,
            "num_hidden_layers": depth,
            "layers_block_type": ["hybrid" if i in uses else "mamba" for i in range(depth)],
            "mamba_d_state": 5,
            "n_mamba_heads": 4,
            "mamba_ngroups": 2,
            "chunk_size": 8,
            "intermediate_size": 24,
            "num_attention_heads": 4,
            "num_mem_blocks": 2,
            "adapter_rank": 3,
            **more,
        }
    )
    return moved(transformers.Zamba2ForCausalLM(config))


def test_two_shared_blocks_in_turn(tmp_path: Path) -> None:
    name = "model.layers.2.shared_transformer.feed_forward.gate_up_proj_adapter_list.1.1.weight"
    run = check_layout(zamba2(), tmp_path, name)
    assert run.spec["backbone"]["uses"] == USES
    assert run.spec["backbone"]["stack"]["blocks"][0]["mixer"]["dt_low"] == 0.001


def test_positions_biases_and_changes_of_attention(tmp_path: Path) -> None:
    theirs = zamba2(
        4,
        [0, 2, 3],
        use_shared_attention_adapter=True,
        use_mem_rope=True,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0},
        add_bias_linear=True,
        rms_norm_eps=1e-3,
        hidden_act="gelu_pytorch_tanh",
    )
    name = "model.layers.2.shared_transformer.self_attn.linear_k_adapter_list.1.0.weight"
    run = check_layout(theirs, tmp_path, name)
    assert run.spec["backbone"]["attention_rank"] == 3
    stack = run.spec["backbone"]["stack"]["blocks"]
    # Norms inside Mamba-2 add 1e-5 whatever the file says of the others.
    assert (stack[0]["norm_eps"], stack[0]["mixer"]["norm_eps"]) == (1e-3, 1e-5)


def test_one_shared_block_with_fewer_heads_of_keys(tmp_path: Path) -> None:
    theirs = zamba2(3, [1], num_mem_blocks=2, num_key_value_heads=2)
    check_logits(checkpoints.open_model(saved(theirs, tmp_path / "theirs")), theirs)


def test_copies_of_shared_blocks_are_read_and_written_or_refused(tmp_path: Path) -> None:
    theirs = zamba2(use_shared_attention_adapter=True)
    source = saved(theirs, tmp_path / "theirs")
    path = source / "model.safetensors"
    held = load_file(path)
    shared = {k: v for k, v in held.items() if "layers.1.shared_transformer" in k}
    held |= {k.replace("layers.1.", "layers.4."): v.clone() for k, v in shared.items()}
    save_file(held, path, metadata={"format": "pt"})
    check_logits(checkpoints.open_model(source), theirs)
    checkpoints.export(source, tmp_path / "back")
    back = tensors(tmp_path / "back")
    assert set(back) == set(held)
    assert all(torch.equal(back[name], tensor) for name, tensor in held.items())
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    ids = torch.arange(3, 20)[None]
    torch.testing.assert_close(full(again, ids), full(theirs, ids), rtol=0, atol=0)
    name = "model.layers.4.shared_transformer.self_attn.q_proj.weight"
    save_file({**held, name: held[name] + 1}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{name}.*differ. Both stand for one matrix: take the files"):
        checkpoints.open_model(source)


def test_the_bound_below_step_sizes_holds_in_the_step_too(tmp_path: Path) -> None:
    # The package's cached step forgets it. Here step sizes would be below it at most tokens.
    theirs = zamba2(3, [1], time_step_min=1.0)
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


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    source = saved(zamba2(3, [1], use_mem_rope=True), tmp_path / "theirs")
    config = json.loads((source / "config.json").read_text())
    for change, said in (
        ({"use_long_context": True}, "use_long_context False; this one's is True"),
        ({"use_shared_mlp_adapter": False}, "use_shared_mlp_adapter True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings True"),
        ({"layers_block_type": ["mamba"] * 3}, "one hybrid layer at least"),
        (
            {"layers_block_type": ["mamba", "hybrid"]},
            "mamba, linear_attention, hybrid, one for each of the 3",
        ),
        ({"n_mamba_heads": 5}, "got 5 and 32"),
        ({"layers_block_type": None}, "num_hidden_layers 54; this one's is 3"),
        ({"adapter_rank": 4}, r"adapter_list.0.0.weight has shape \(3, 16\), config.json asks for \(4, 16\)"),
    ):
        (source / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            checkpoints.open_model(source)
