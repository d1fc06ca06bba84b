"""Checkpoints of Mamba, Mamba-2 and Falcon-Mamba, of transformers and of the authors, in and out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints._layouts import check_layout, check_logits, check_way_back, moved, saved

from hippodrome import checkpoints

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")

COMMON: dict[str, Any] = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 3}


def mamba(**more: Any) -> Any:
    config = transformers.MambaConfig(**COMMON, state_size=5, time_step_rank=3, **more)
    return moved(transformers.MambaForCausalLM(config))


def mamba2(**more: Any) -> Any:
    heads = {"num_heads": 4, "head_dim": 8, "n_groups": 2, "state_size": 6, "chunk_size": 8}
    return moved(transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**{**COMMON, **heads, **more})))


def falcon(**more: Any) -> Any:
    config = transformers.FalconMambaConfig(**COMMON, state_size=5, time_step_rank=3, **more)
    return moved(transformers.FalconMambaForCausalLM(config))


def test_mamba(tmp_path: Path) -> None:
    check_layout(mamba(), tmp_path, "backbone.layers.1.mixer.x_proj.weight")


def test_mamba_with_biases_and_a_head_of_its_own(tmp_path: Path) -> None:
    theirs = mamba(use_bias=True, use_conv_bias=False, tie_word_embeddings=False, layer_norm_epsilon=1e-3)
    check_layout(theirs, tmp_path, "lm_head.weight")


def test_mamba2_with_bounds_of_the_step_sizes_and_norms_by_groups(tmp_path: Path) -> None:
    run = check_layout(mamba2(time_step_limit=(0.05, 0.6)), tmp_path, "backbone.layers.0.mixer.norm.weight")
    assert run.spec["backbone"]["blocks"][0]["mixer"]["dt_high"] == 0.6


def test_falcon_mamba_takes_the_width_that_is_said(tmp_path: Path) -> None:
    theirs = falcon(tie_word_embeddings=False)
    run = check_layout(theirs, tmp_path, "lm_head.weight")
    # The published file says expand 16 beside a width that is twice the outer one.
    path = tmp_path / "theirs" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "expand": 16}))
    again = checkpoints.open_model(tmp_path / "theirs")
    assert again.spec["backbone"]["blocks"][0]["mixer"]["d_inner"] == 32
    torch.testing.assert_close(again.model.state_dict(), run.model.state_dict(), rtol=0, atol=0)
    check_logits(again, theirs)


def authors(theirs: Any, folder: Path, config: dict[str, Any], words: int) -> Path:
    """The authors' folder of the same model: a pickle, another name of the table, its rows padded."""
    held = {k.replace("backbone.embeddings", "backbone.embedding"): v for k, v in theirs.state_dict().items()}
    folder.mkdir()
    torch.save(held, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(
        json.dumps({"d_model": 16, "n_layer": 3, "vocab_size": words, "rms_norm": True, **config})
    )
    return folder


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_the_authors_own_layout_with_a_padded_vocabulary(kind: str, tmp_path: Path) -> None:
    theirs = mamba() if kind == "mamba" else mamba2(tie_word_embeddings=True)
    cell = {"d_state": 5, "dt_rank": 3} if kind == "mamba" else {"layer": "Mamba2", "d_state": 6}
    cell |= {} if kind == "mamba" else {"headdim": 8, "ngroups": 2}
    folder = authors(theirs, tmp_path / "own", {"ssm_cfg": cell, "pad_vocab_size_multiple": 8}, 19)
    run = checkpoints.open_model(folder)
    assert run.spec["vocab_size"] == 24
    check_logits(run, theirs)
    # Their layout to transformers' and back again: names, tied copy and bits.
    checkpoints.export(folder, tmp_path / "hf", layout=f"{kind}-hf")
    again = type(theirs).from_pretrained(tmp_path / "hf").eval()
    check_logits(run, again)
    checkpoints.export(tmp_path / "hf", tmp_path / "back", layout=kind)
    before = torch.load(folder / "pytorch_model.bin", weights_only=True)
    # What the authors' program loads: one pickle, and in it the head, which shares the table's numbers.
    after = torch.load(tmp_path / "back" / "pytorch_model.bin", weights_only=True)
    assert set(before) == set(after)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert after["lm_head.weight"].data_ptr() == after["backbone.embedding.weight"].data_ptr()
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == ["config.json", "pytorch_model.bin"]


def test_parts_and_half_precision(tmp_path: Path) -> None:
    theirs = mamba2().to(torch.bfloat16)
    source = saved(theirs, tmp_path / "theirs", max_shard_size="8KB")
    assert len(list(source.glob("model-*.safetensors"))) > 2
    run = checkpoints.open_model(source)
    kinds = {name: p.dtype for name, p in run.model.named_parameters()}
    wide = {name for name, kind in kinds.items() if kind == torch.float32}
    assert set(kinds.values()) == {torch.float32, torch.bfloat16}
    assert {name.rsplit(".", 1)[1] for name in wide} == {"A_log", "D", "dt_bias"}
    wide = checkpoints.open_model(source, dtype="float32")
    check_logits(wide, theirs.float())
    checkpoints.export(source, tmp_path / "back", shard=8000)
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) > 2
    again = checkpoints.open_model(tmp_path / "back")
    torch.testing.assert_close(again.model.state_dict(), run.model.state_dict(), rtol=0, atol=0)
    assert transformers.Mamba2ForCausalLM.from_pretrained(tmp_path / "back").dtype == torch.bfloat16


def test_what_is_stored_in_full_beside_half_precision_keeps_its_bits(tmp_path: Path) -> None:
    theirs = mamba2().to(torch.bfloat16)
    numbers = torch.Generator().manual_seed(3)
    for name, p in theirs.named_parameters():
        if name.endswith(("A_log", "D", "dt_bias")):
            p.data = torch.rand(p.shape, generator=numbers)
    check_way_back(saved(theirs, tmp_path / "theirs"), tmp_path, type(theirs))
