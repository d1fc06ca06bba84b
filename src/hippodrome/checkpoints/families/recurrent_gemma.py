"""RecurrentGemma checkpoints: RG-LRU and attention over a window, scales that are one and a parameter."""

from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.checkpoints.families._hybrid import activation, heads, joined, only_used, rope
from hippodrome.checkpoints.families.mamba import language
from hippodrome.config import stack_spec
from hippodrome.recipes.recurrentgemma_2b import RECIPE

LAYOUTS = RECIPE.layouts
NAMES = {"recurrent": "rg_lru", "attention": "attention"}
"""Kinds of layers, and what they are called here."""


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    return "recurrent_gemma" if config.get("model_type") == "recurrent_gemma" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration."""
    fields = Fields(config, "RecurrentGemma")
    width, layers = fields.whole("hidden_size"), fields.whole("num_hidden_layers")
    usual = ["recurrent", "recurrent", "attention"]
    kinds = fields.words("block_types", fields.get("block_types", usual), NAMES)
    count, hidden = fields.whole("num_attention_heads"), fields.whole("intermediate_size")
    function = activation(fields, "hidden_activation", "gelu_pytorch_tanh")
    attention = {
        **heads(fields, width, None, width // count),
        **rope(fields, share=fields.number("partial_rotary_factor", 0.5)),
        "window": fields.whole("attention_window_size", 2048),
        "bias": fields.flag("attention_bias", False),
        "out_bias": True,
    }
    options = {
        "rg_lru": {
            "d_recurrent": fields.whole("lru_width", width),
            "taps": fields.whole("conv1d_width", 4),
            "gate_blocks": count,
            "activation": function,
            "bias": True,
            "whole_first": True,
        },
        "attention": attention,
        # The file tells the channels of both halves of the first map.
        "mlp": {"d_hidden": hidden // 2, "activation": function, "bias": True},
    }
    placed = [NAMES[kinds[i % len(kinds)]] for i in range(layers)]
    pattern = [name for kind in placed for name in (kind, "mlp")]
    stack = stack_spec(
        pattern,
        width,
        options=only_used(options, pattern),
        norm="rms1",
        norm_eps=fields.number("rms_norm_eps", 1e-6),
    )
    spec = language(stack, fields.whole("vocab_size"), fields.flag("tie_word_embeddings", True))
    spec["embedding_scale"] = root_of(width)
    spec["logit_cap"] = fields.number("logits_soft_cap", 30.0)
    attends = [i for i, kind in enumerate(placed) if kind == "attention"]
    recurs = [i for i, kind in enumerate(placed) if kind != "attention"]
    lists = {
        "attention_layers": attends,
        "attention_blocks": [2 * i for i in attends],
        "recurrent_layers": recurs,
        "recurrent_blocks": [2 * i for i in recurs],
        "heads": joined(attention),
    }
    return Reading(spec, lists)


def root_of(width: int) -> float:
    """The root of the width, which is rounded to bfloat16 there whatever the weights are."""
    import torch

    return float(torch.tensor(width**0.5, dtype=torch.bfloat16))
