"""Granite 4 checkpoints: Mamba-2 and attention, perceptrons or mixtures, factors on what is added."""

from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.checkpoints.families._hybrid import LAYERS, heads, joined, mamba2, natural, only_used, rope
from hippodrome.checkpoints.families.mamba import language
from hippodrome.config import stack_spec
from hippodrome.recipes.granite_4_h_tiny import RECIPE

LAYOUTS = RECIPE.layouts


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    return "granitemoehybrid" if config.get("model_type") == "granitemoehybrid" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration. What is not said there is one for every factor, scores' too."""
    fields = Fields(config, "Granite hybrid")
    fields.only("hidden_act", "silu")
    fields.only("position_embedding_type", None, "nope", "rope")
    width, eps = fields.whole("hidden_size"), fields.number("rms_norm_eps", 1e-6)
    turned = fields.get("position_embedding_type") == "rope"
    attention = {
        **heads(fields, width, None),
        **({"rope_base": rope(fields)["rope_base"]} if turned else {"rope": False}),
        "scale": fields.number("attention_multiplier", 1.0),
        "bias": fields.flag("attention_bias", False),
    }
    experts = natural(fields, "num_local_experts", 8)
    options = {
        "mamba2": mamba2(fields, width, eps),
        "attention": attention,
        "mlp": {"d_hidden": fields.whole("shared_intermediate_size", 1024)},
        "moe": {
            "d_hidden": fields.whole("intermediate_size", 11008),
            "experts": experts,
            "active": fields.whole("num_experts_per_tok", 2),
            "renormalize": True,
            "shared": fields.whole("shared_intermediate_size", 1024),
            "balance": 0.0,
        },
    }
    mixers = _mixers(fields)
    pattern = [name for mixer in mixers for name in (mixer, "moe" if experts else "mlp")]
    stack = stack_spec(
        pattern,
        width,
        options=only_used(options, pattern),
        norm_eps=eps,
        scale=fields.number("residual_multiplier", 1.0),
    )
    spec = language(stack, fields.whole("vocab_size"), fields.flag("tie_word_embeddings", False))
    spec["embedding_scale"] = fields.number("embedding_multiplier", 1.0)
    spec["logit_scale"] = 1 / fields.above("logits_scaling", 1.0)
    attends = [i for i, kind in enumerate(mixers) if kind == "attention"]
    recurs = [i for i, kind in enumerate(mixers) if kind == "mamba2"]
    lists = {
        "attention_layers": attends,
        "attention_blocks": [2 * i for i in attends],
        "mamba_layers": recurs,
        "mamba_blocks": [2 * i for i in recurs],
        "heads": joined(attention),
    }
    return Reading(spec, lists)


def _mixers(fields: Fields) -> list[str]:
    """The kind of mixer in each layer, by either name of the list; Mamba-2 where there is none."""
    count = fields.whole("num_hidden_layers")
    kinds = fields.get("layer_types", fields.get("layers_block_type", ["mamba"] * count))
    known = [name for name, kind in LAYERS.items() if kind in ("mamba2", "attention")]
    return [LAYERS[kind] for kind in fields.words("layer_types", kinds, known, count)]
