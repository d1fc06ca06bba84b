"""Zamba2 checkpoints: Mamba-2, some of whose layers hear a transformer block that they share."""

from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.checkpoints.families._hybrid import activation, heads, joined, rope
from hippodrome.checkpoints.families.mamba import language
from hippodrome.config import stack_spec
from hippodrome.recipes.zamba2_2_5b import RECIPE

LAYOUTS = RECIPE.layouts

PLAIN, HYBRID = ("mamba", "linear_attention"), "hybrid"


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    return "zamba2" if config.get("model_type") == "zamba2" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration.

    ``time_step_min`` bounds step sizes below, as in the full forward of ``transformers``; its step with a
    cache forgets that. Norms inside Mamba-2 add 1e-5 whatever ``rms_norm_eps`` is, as they do there.
    """
    fields = Fields(config, "Zamba2")
    fields.only("use_shared_mlp_adapter", True)
    # The package shares no blocks either where this is false: what such a file means is not settled.
    fields.only("tie_word_embeddings", True)
    width, depth = fields.whole("hidden_size"), fields.whole("num_hidden_layers")
    uses = _uses(fields, depth)
    bias = fields.flag("add_bias_linear", False)
    inner, count = fields.whole("mamba_expand", 2) * width, fields.whole("n_mamba_heads", 8)
    if inner % count:
        raise ValueError(
            f"config.json of a Zamba2 checkpoint has n_mamba_heads that divide mamba_expand times "
            f"hidden_size; got {count} and {inner}"
        )
    turns = fields.flag("use_mem_rope", False)
    if turns:
        # Versions of the package disagree on what base that has.
        fields.only("use_long_context", False)
    count_heads = fields.whole("num_attention_heads")
    attention = heads(fields, width, None, 2 * width // count_heads)
    rank = fields.whole("adapter_rank", 128)
    shared = min(fields.whole("num_mem_blocks", 1), len(uses))
    options: dict[str, dict[str, Any]] = {
        "mamba2": {
            "d_state": fields.whole("mamba_d_state", 64),
            "taps": fields.whole("mamba_d_conv", 4),
            "expand": fields.whole("mamba_expand", 2),
            "head_dim": inner // count,
            "groups": fields.whole("mamba_ngroups", 1),
            "dt_low": fields.number("time_step_min", 0.001),
            "proj_bias": bias,
        },
        "shared_attention": {
            "uses": uses,
            "shared": shared,
            "heads": attention["heads"],
            "kv_heads": attention["kv_heads"],
            "d_hidden": fields.whole("intermediate_size", 4 * width),
            "rank": rank,
            "attention_rank": rank if fields.flag("use_shared_attention_adapter", False) else None,
            "activation": activation(fields, "hidden_act", "gelu"),
            "bias": bias,
            "rope": turns,
            **(rope(fields) if turns else {}),
        },
    }
    stack = stack_spec(
        "shared_attention:mamba2",
        width,
        depth,
        options=options,
        mlp=False,
        norm_eps=fields.number("rms_norm_eps", 1e-5),
    )
    places = {
        "plain": [i for i in range(depth) if i not in uses],
        "uses": uses,
        "homes": [uses[use % shared] for use in range(len(uses))],
        "heads": joined(attention),
    }
    return Reading(language(stack, fields.whole("vocab_size"), tie=True), places)


def _uses(fields: Fields, depth: int) -> list[int]:
    """The layers that hear a shared block; those of the class's default where the file lists no kinds."""
    kinds = fields.get("layers_block_type", fields.get("layer_types"))
    if kinds is None:
        fields.only("num_hidden_layers", 54)
        return [6, 12, 18, 24, 30, 36, 42, 47, 51]
    kinds = fields.words("layers_block_type", kinds, (*PLAIN, HYBRID), depth)
    uses = [i for i, kind in enumerate(kinds) if kind == HYBRID]
    if not uses:
        raise ValueError(
            "Zamba2 checkpoints are read with one hybrid layer at least; layers_block_type here has none"
        )
    return uses
