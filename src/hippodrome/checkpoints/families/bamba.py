"""Bamba checkpoints: Mamba-2 with a few layers of attention, half of whose channels have positions."""

from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.checkpoints.families._hybrid import heads, joined, mamba2, only_used, rope
from hippodrome.checkpoints.families.mamba import language
from hippodrome.config import stack_spec
from hippodrome.recipes.bamba_9b import RECIPE

LAYOUTS = RECIPE.layouts


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    return "bamba" if config.get("model_type") == "bamba" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration. The class's default state has 256 channels, the released model's 128."""
    fields = Fields(config, "Bamba")
    fields.only("hidden_act", "silu")
    width, layers = fields.whole("hidden_size"), range(fields.whole("num_hidden_layers"))
    eps = fields.number("rms_norm_eps", 1e-5)
    listed = fields.get("attn_layer_indices", [])
    if not isinstance(listed, list) or any(i not in layers for i in listed):
        raise ValueError(
            f"config.json of a Bamba checkpoint: attn_layer_indices are numbers of layers below "
            f"{len(layers)}; got {listed!r}"
        )
    attention = {
        **heads(fields, width),
        **rope(fields, share=0.5),
        "bias": fields.flag("attention_bias", False),
    }
    options = {"mamba2": mamba2(fields, width, eps), "attention": attention}
    pattern = ["attention" if i in listed else "mamba2" for i in layers]
    stack = stack_spec(
        pattern,
        width,
        options=only_used(options, pattern),
        mlp=True,
        d_hidden=fields.whole("intermediate_size"),
        norm_eps=eps,
    )
    for block in stack["blocks"]:
        block["mlp"]["bias"] = fields.flag("mlp_bias", False)
    places = {
        "attention": [i for i in layers if i in listed],
        "mamba": [i for i in layers if i not in listed],
        "heads": joined(attention),
    }
    tie = fields.flag("tie_word_embeddings", False)
    return Reading(language(stack, fields.whole("vocab_size"), tie), places)
