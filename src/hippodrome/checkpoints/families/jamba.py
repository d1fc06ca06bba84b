"""Jamba checkpoints: Mamba with norms, attention without positions, perceptrons and mixtures of experts."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.checkpoints.families._hybrid import heads, joined, natural, only_used
from hippodrome.checkpoints.families.mamba import language
from hippodrome.config import stack_spec
from hippodrome.recipes.jamba_v0_1 import RECIPE

LAYOUTS = RECIPE.layouts


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    return "jamba" if config.get("model_type") == "jamba" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration. A layer there is two here: what mixes tokens, and what mixes channels."""
    fields = Fields(config, "Jamba")
    fields.only("hidden_act", "silu")
    fields.only("sliding_window", None)
    fields.only("mamba_inner_layernorms", True)
    width, layers = fields.whole("hidden_size"), range(fields.whole("num_hidden_layers"))
    eps = fields.number("rms_norm_eps", 1e-6)
    experts, hidden = fields.whole("num_experts", 16), fields.whole("intermediate_size")
    attends = [i in _every(fields, "attn_layer", 8, 4, layers) for i in layers]
    routes = [i in _every(fields, "expert_layer", 2, 1, layers) and experts > 1 for i in layers]
    attention = {**heads(fields, width), "rope": False}
    rank = fields.get("mamba_dt_rank", "auto")
    options = {
        "mamba": {
            "d_state": fields.whole("mamba_d_state", 16),
            "taps": fields.whole("mamba_d_conv", 4),
            "expand": fields.whole("mamba_expand", 2),
            "dt_rank": ceil(width / 16) if rank == "auto" else fields.whole("mamba_dt_rank"),
            "norms": "learned",
            "norm_eps": eps,
            "conv_bias": fields.flag("mamba_conv_bias", True),
            "proj_bias": fields.flag("mamba_proj_bias", False),
        },
        "attention": attention,
        "mlp": {"d_hidden": hidden},
        "moe": {
            "d_hidden": hidden,
            "experts": experts,
            "active": fields.whole("num_experts_per_tok", 2),
            "balance": fields.number("router_aux_loss_coef", 0.001),
        },
    }
    pattern = [
        kind
        for attending, routing in zip(attends, routes, strict=True)
        for kind in ("attention" if attending else "mamba", "moe" if routing else "mlp")
    ]
    stack = stack_spec(pattern, width, options=only_used(options, pattern), norm_eps=eps)
    places = {
        "attention_layers": [i for i in layers if attends[i]],
        "attention_blocks": [2 * i for i in layers if attends[i]],
        "mamba_layers": [i for i in layers if not attends[i]],
        "mamba_blocks": [2 * i for i in layers if not attends[i]],
        "heads": joined(attention),
    }
    tie = fields.flag("tie_word_embeddings", False)
    return Reading(language(stack, fields.whole("vocab_size"), tie), places)


def _every(fields: Fields, name: str, period: int, offset: int, layers: range) -> set[int]:
    """The layers at an offset in each period."""
    period, offset = fields.whole(f"{name}_period", period), natural(fields, f"{name}_offset", offset)
    if offset >= period:
        raise ValueError(
            f"config.json of a Jamba checkpoint: {name}_offset is below {name}_period; got {offset} and "
            f"{period}"
        )
    return {i for i in layers if i % period == offset}
