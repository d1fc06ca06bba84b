"""Falcon-Mamba checkpoints: Mamba with norms that have no weights, and the width that the file says."""

from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.checkpoints.families.mamba import language, own_width, rank
from hippodrome.config import stack_spec
from hippodrome.recipes.falcon_mamba_7b import RECIPE

LAYOUTS = RECIPE.layouts


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    return "falcon_mamba" if config.get("model_type") == "falcon_mamba" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration."""
    fields = Fields(config, "Falcon-Mamba")
    fields.only("hidden_act", "silu")
    width = fields.whole("hidden_size")
    options = {
        "d_state": fields.whole("state_size", 16),
        "taps": fields.whole("conv_kernel", 4),
        "expand": fields.whole("expand", 2),
        "dt_rank": rank(fields, width),
        "norms": "weightless",
        "norm_eps": fields.number("mixer_rms_eps", 1e-6),
        "conv_bias": fields.flag("use_conv_bias", True),
        "proj_bias": fields.flag("use_bias", False),
        **own_width(fields, width),
    }
    stack = stack_spec(
        "mamba",
        width,
        fields.whole("num_hidden_layers"),
        options={"mamba": options},
        mlp=False,
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
    )
    return Reading(language(stack, fields.whole("vocab_size"), fields.flag("tie_word_embeddings", True)))
