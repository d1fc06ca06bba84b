"""Bamba checkpoints: Mamba-2 with a few layers of attention, half of whose channels have positions."""

from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.checkpoints.families._hybrid import heads, joined, only_used, rope
from hippodrome.checkpoints.families.mamba import language
from hippodrome.checkpoints.families.mamba2 import limits
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
    inner, count = fields.whole("mamba_expand", 2) * width, fields.whole("mamba_n_heads", 128)
    size = fields.get("mamba_d_head", "auto")
    size = inner // count if size == "auto" else fields.whole("mamba_d_head")
    if size * count != inner:
        raise ValueError(
            f"config.json of a Bamba checkpoint has mamba_n_heads times mamba_d_head equal to mamba_expand "
            f"times hidden_size; got {count} times {size}, and {inner}"
        )
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
    options = {
        "mamba2": {
            "d_state": fields.whole("mamba_d_state", 256),
            "taps": fields.whole("mamba_d_conv", 4),
            "expand": fields.whole("mamba_expand", 2),
            "head_dim": size,
            "groups": fields.whole("mamba_n_groups", 1),
            "norm_eps": eps,
            "conv_bias": fields.flag("mamba_conv_bias", True),
            "proj_bias": fields.flag("mamba_proj_bias", False),
            **limits(fields.get("time_step_limit", [0.0, float("inf")])),
        },
        "attention": attention,
    }
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
