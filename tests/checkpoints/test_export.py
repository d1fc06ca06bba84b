"""Models that began here, written for other programs: transformers runs them, vLLM finds what it reads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints._layouts import close, full, ids_of, moved, tensors

from hippodrome import checkpoints, config
from hippodrome.checkpoints import writing

transformers = pytest.importorskip("transformers", reason="exports are read by transformers")

# What vLLM's models of these two architectures take from config.json, and the names that its loader knows.
READ = {
    "mamba": ("intermediate_size", "time_step_rank"),
    "mamba2": ("expand", "n_groups", "num_heads", "head_dim"),
}
BOTH = ("hidden_size", "state_size", "conv_kernel", "use_conv_bias", "use_bias", "layer_norm_epsilon")
BOTH += ("hidden_act", "vocab_size", "num_hidden_layers", "tie_word_embeddings")
NAMES = {
    "mamba": {"in_proj", "conv1d", "x_proj", "dt_proj", "A_log", "D", "out_proj"},
    "mamba2": {"in_proj", "conv1d", "dt_bias", "A_log", "D", "norm", "out_proj"},
}


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_a_model_of_ours_runs_elsewhere(kind: str, tie: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"d_state": 6, "conv_bias": tie}
    options |= {} if kind == "mamba" else {"head_dim": 4, "groups": 2}
    stack = config.stack_spec(kind, 16, 3, options={kind: options}, norm_eps=1e-5)
    spec = {"kind": "language", "vocab_size": 24, "tie": tie, "backbone": stack}
    ours = moved(config.build(spec))
    origin = writing.origin_of(spec, f"{kind}-hf", torch.float32)
    writing.export(ours, origin, tmp_path / "out")

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = ids_of(24)
    with torch.no_grad():
        close(ours(ids)[0], full(theirs, ids))

    said = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert said.architectures == [{"mamba": "MambaForCausalLM", "mamba2": "Mamba2ForCausalLM"}[kind]]
    assert all(hasattr(said, name) for name in (*BOTH, *READ[kind]))
    names = {name.split(".")[4] for name in tensors(tmp_path / "out") if ".mixer." in name}
    assert names == NAMES[kind]
    # Opened again it is the model that was written.
    again = checkpoints.open_model(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids)[0], ours(ids)[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("around", "inside"),
    [
        ({"logit_cap": 30.0}, {}),
        ({"embedding_scale": 2.0}, {}),
        ({"logit_scale": 0.5}, {}),
        ({}, {"in_scales": [1.0, 1.0, 1.0, 1.0, 2.0]}),
    ],
)
def test_factors_that_the_layout_cannot_say_are_not_dropped(around: dict, inside: dict) -> None:
    stack = config.stack_spec("mamba2", 16, 2, options={"mamba2": {"head_dim": 4, **inside}})
    spec = {"kind": "language", "vocab_size": 24, "backbone": stack, **around}
    with pytest.raises(ValueError, match="cannot say what this model is"):
        writing.origin_of(spec, "mamba2-hf", torch.float32)
