"""What readers of hybrids have in common: published sizes come out, and half precision runs in every form."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints._layouts import ids_of, saved
from tests.checkpoints.test_bamba import bamba
from tests.checkpoints.test_jamba import jamba
from tests.checkpoints.test_nemotron_h import nemotron
from tests.checkpoints.test_zamba2 import zamba2
from typer.testing import CliRunner

from hippodrome import checkpoints
from hippodrome.checkpoints import reading
from hippodrome.checkpoints.families import bamba as bambas
from hippodrome.checkpoints.families import jamba as jambas
from hippodrome.checkpoints.families import zamba2 as zambas
from hippodrome.cli import app

transformers = pytest.importorskip("transformers", reason="layouts are compared with transformers")


@pytest.mark.parametrize(
    ("family", "theirs"),
    [
        (jambas, transformers.JambaConfig()),
        (bambas, transformers.BambaConfig(mamba_d_state=128, attn_layer_indices=[9, 18, 27])),
        (zambas, transformers.Zamba2Config()),
    ],
    ids=["jamba", "bamba", "zamba2"],
)
def test_configurations_of_published_sizes_are_the_recipes(family: Any, theirs: Any) -> None:
    spec = family.read(theirs.to_dict()).spec
    assert spec["tie"] == family.RECIPE.model.tie
    assert_within(family.RECIPE.model.stack(), spec["backbone"])


SIZES = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}
"""Fields that a configuration must have; what else a file leaves out is what the class takes by default."""


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("Mamba", set()),
        ("Mamba2", {"num_heads", "head_dim"}),
        ("FalconMamba", set()),
        ("Jamba", set()),
        ("Bamba", set()),
        ("Zamba2", set()),
        ("NemotronH", {"layers_block_type"}),
        ("RecurrentGemma", set()),
        ("GraniteMoeHybrid", set()),
        ("FalconH1", set()),
    ],
)
def test_a_field_that_a_file_leaves_out_is_what_the_class_takes(name: str, needed: set[str]) -> None:
    whole = getattr(transformers, f"{name}Config")().to_dict()
    found = reading.layout_of(whole)
    assert found is not None
    short = {k: v for k, v in whole.items() if k in SIZES | needed | {"model_type"}}
    assert found[0].read(short).spec == found[0].read(whole).spec


def assert_within(part: Any, whole: Any, path: str = "") -> None:
    """Whether all that one spec says stands in the other; how long a chunk is changes speed alone."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name != "chunk":
                assert name in whole, f"{path}.{name}"
                assert_within(value, whole[name], f"{path}.{name}")
    elif isinstance(part, list):
        assert len(part) == len(whole), path
        for i, (one, other) in enumerate(zip(part, whole, strict=True)):
            assert_within(one, other, f"{path}.{i}")
    else:
        assert part == whole, path


@pytest.mark.parametrize(
    "made",
    [
        lambda: jamba(num_experts=1, mamba_proj_bias=True, tie_word_embeddings=True),
        lambda: nemotron("ME*-", n_group=4, topk_group=2, moe_latent_size=12, mlp_bias=True, use_bias=True),
        lambda: zamba2(use_shared_attention_adapter=True, use_mem_rope=True, add_bias_linear=True),
    ],
    ids=["jamba", "nemotron_h", "zamba2"],
)
@torch.no_grad()
def test_half_precision_runs_whole_and_token_by_token(made: Any, tmp_path: Path) -> None:
    source = saved(made().to(torch.bfloat16), tmp_path / "theirs", max_shard_size="8KB")
    assert len(list(source.glob("model-*.safetensors"))) > 1
    model, wide = checkpoints.open_model(source).model, checkpoints.open_model(source, dtype="float32").model
    ids = ids_of(24)
    expected = wide(ids)[0]
    state = model.init_state(2, ids.shape[1])
    steps = torch.stack([model.advance_(ids[:, t], state) for t in range(ids.shape[1])], 1)
    for got in (model(ids)[0], steps):
        assert got.dtype == torch.bfloat16
        assert (got - expected).abs().mean() < 0.01 * expected.abs().max()


def test_half_precision_is_looked_at_in_full(tmp_path: Path) -> None:
    source = saved(bamba(num_hidden_layers=2).to(torch.bfloat16), tmp_path / "theirs")
    answer = CliRunner().invoke(app, ["inspect", str(source), "--length", "8", "--json"])
    facts = json.loads(answer.stdout)
    assert 0 < facts["memory_tokens"] <= 8
    # What decoding reads is what the file holds: two bytes for nearly all of them.
    assert facts["bytes_per_token"] - facts["state_bytes"] < 2.2 * facts["parameters"]
