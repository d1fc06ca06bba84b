"""Nemotron-H checkpoints: a mixer, a perceptron or a mixture of experts in each layer."""

from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.checkpoints.families._hybrid import LAYERS, activation, heads, joined, only_used
from hippodrome.checkpoints.families.mamba import language
from hippodrome.config import stack_spec
from hippodrome.config.allocation import from_symbols
from hippodrome.recipes.nemotron_h_8b import RECIPE

LAYOUTS = RECIPE.layouts
OLDER = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_dt_min": "time_step_min",
}
"""Fields by the names that older files have for them; where both stand there, these hold."""


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    return "nemotron_h" if config.get("model_type") == "nemotron_h" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration.

    ``time_step_min`` bounds step sizes below, as in the full forward of ``transformers``; its step with a
    cache forgets that, and ``time_step_limit`` says nothing there.
    """
    fields = Fields({**config, **{OLDER[k]: v for k, v in config.items() if k in OLDER}}, "Nemotron-H")
    fields.only("mamba_hidden_act", "silu")
    fields.only("attention_bias", False)
    fields.only("tie_word_embeddings", False)
    fields.only("n_shared_experts", 1)
    width, eps = fields.whole("hidden_size"), fields.number("layer_norm_epsilon", 1e-5)
    count, size = fields.whole("mamba_num_heads", 128), fields.whole("mamba_head_dim", 64)
    function, bias = activation(fields, "mlp_hidden_act", "relu2"), fields.flag("mlp_bias", False)
    # Older files call the size of a head otherwise.
    size_of_head = fields.whole("head_dim", fields.whole("attention_head_dim", 128))
    attention = {**heads(fields, width, size=size_of_head), "rope": False}
    latent = fields.get("moe_latent_size")
    options = {
        "mamba2": {
            "d_inner": count * size,
            "head_dim": size,
            "d_state": fields.whole("ssm_state_size", 128),
            "groups": fields.whole("n_groups", 8),
            "taps": fields.whole("conv_kernel", 4),
            "dt_low": fields.number("time_step_min", 0.001),
            "norm_eps": eps,
            "conv_bias": fields.flag("use_conv_bias", True),
            "proj_bias": fields.flag("use_bias", False),
        },
        "attention": attention,
        "mlp": {
            "d_hidden": fields.whole("intermediate_size", 21504),
            "gated": False,
            "activation": function,
            "bias": bias,
        },
        "moe": {
            "d_hidden": fields.whole("moe_intermediate_size", 7688),
            "experts": fields.whole("n_routed_experts", fields.whole("num_local_experts", 8)),
            "active": fields.whole("num_experts_per_tok", 2),
            "activation": function,
            "gated": False,
            "renormalize": fields.flag("norm_topk_prob", True),
            "balance": 0.0,
            "scores": "sigmoid",
            "groups": fields.whole("n_group", 1),
            "active_groups": fields.whole("topk_group", 1),
            "factor": fields.number("routed_scaling_factor", 1.0),
            "shared": fields.whole("moe_shared_expert_intermediate_size", 7688),
            "latent": None if latent is None else fields.whole("moe_latent_size"),
            "bias": bias,
        },
    }
    pattern = _layers(fields)
    stack = stack_spec(pattern, width, options=only_used(options, pattern), mlp=False, norm_eps=eps)
    places = {
        "attention": [i for i, kind in enumerate(pattern) if kind == "attention"],
        "mamba": [i for i, kind in enumerate(pattern) if kind == "mamba2"],
        "heads": joined(attention),
    }
    return Reading(language(stack, fields.whole("vocab_size", 131072), False), places)


def _layers(fields: Fields) -> list[str]:
    """The kinds of all layers, from a list of them or from the pattern in symbols."""
    listed = fields.get("layers_block_type", fields.get("layer_types"))
    if listed is not None:
        return [LAYERS[kind] for kind in fields.words("layers_block_type", listed, LAYERS)]
    symbols = fields.text("hybrid_override_pattern")
    found = from_symbols(symbols) if symbols else None
    if found is None:
        raise ValueError(
            f"config.json of a Nemotron-H checkpoint: hybrid_override_pattern has M for Mamba-2, * for "
            f"attention, - for a perceptron and E for experts; got {symbols!r}"
        )
    return list(found)
