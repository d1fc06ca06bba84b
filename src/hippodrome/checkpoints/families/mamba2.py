"""Mamba-2 checkpoints: the authors' own files and those of ``transformers``."""

import math
from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields, plain, spelled
from hippodrome.checkpoints.families.mamba import (
    authors_layer,
    cell_of,
    check_authors,
    language,
    padded,
    plain_stack,
)
from hippodrome.config import stack_spec
from hippodrome.recipes.mamba2_130m import RECIPE

LAYOUTS = RECIPE.layouts


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    if config.get("model_type") == "mamba2":
        return "mamba2-hf"
    return "mamba2" if authors_layer(config) == "Mamba2" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration of either layout."""
    return Reading(_theirs(config) if config.get("model_type") == "mamba2" else _authors(config))


def _theirs(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = Fields(config, "Mamba-2")
    fields.only("hidden_act", "silu")
    fields.only("rms_norm", True)
    width, heads, size = (fields.whole(k) for k in ("hidden_size", "num_heads", "head_dim"))
    if heads * size != fields.whole("expand", 2) * width:
        raise ValueError(
            f"config.json of a Mamba-2 checkpoint has num_heads times head_dim equal to expand times "
            f"hidden_size; got {heads} times {size}, and {fields.whole('expand', 2)} times {width}"
        )
    options = {
        "d_state": fields.whole("state_size", 128),
        "taps": fields.whole("conv_kernel", 4),
        "expand": fields.whole("expand", 2),
        "head_dim": size,
        "groups": fields.whole("n_groups", 8),
        "conv_bias": fields.flag("use_conv_bias", True),
        "proj_bias": fields.flag("use_bias", False),
        "norm_eps": fields.number("layer_norm_epsilon", 1e-5),
        **limits(fields.get("time_step_limit", [0.0, math.inf])),
    }
    return language(
        stack_spec(
            "mamba2",
            width,
            fields.whole("num_hidden_layers"),
            options={"mamba2": options},
            mlp=False,
            norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        ),
        fields.whole("vocab_size"),
        fields.flag("tie_word_embeddings", False),
    )


def limits(pair: Any) -> dict[str, float]:
    """Bounds of the step sizes: a number below, and one above unless that is infinite."""
    both = [plain(x) for x in pair] if isinstance(pair, list | tuple) else []
    if len(both) != 2 or any(isinstance(x, bool) or not isinstance(x, int | float) for x in both):
        raise ValueError(f"bounds of step sizes are two numbers, the lower first; config.json has {pair!r}")
    low, high = map(float, both)
    return {"dt_low": low, **({} if math.isinf(high) else {"dt_high": high})}


def _authors(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = Fields(config, "Mamba-2")
    check_authors(fields)
    width = fields.whole("d_model")
    cell = cell_of(fields)
    cell.pop("layer", None)
    cell.pop("chunk_size", None)  # it changes speed alone
    names = {
        "d_state": "d_state",
        "d_conv": "taps",
        "expand": "expand",
        "headdim": "head_dim",
        "ngroups": "groups",
        "d_ssm": "d_ssm",
        "rmsnorm": "norm",
        "norm_before_gate": "norm_before_gate",
        "D_has_hdim": "D_per_channel",
        "conv_bias": "conv_bias",
        "bias": "proj_bias",
    }
    drawn = {"A_init_range", "dt_min", "dt_max", "dt_init_floor"}  # where training began
    limit = limits(cell.pop("dt_limit", [0.0, math.inf]))
    unknown = sorted(set(cell) - set(names) - drawn)
    if unknown:
        raise ValueError(f"ssm_cfg of a Mamba-2 checkpoint has {unknown[0]!r}, which is not built here")
    options = {names[k]: v for k, v in cell.items() if k not in drawn}
    options = {"d_state": 128, "taps": 4, "expand": 2, "head_dim": 64, "groups": 1, **options, **limit}
    return language(
        stack_spec("mamba2", width, fields.whole("n_layer"), options={"mamba2": options}, mlp=False),
        padded(fields),
        fields.flag("tie_embeddings", True),
    )


def write(spec: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The configuration of a model of ours in a layout; None where the model is no plain Mamba-2."""
    plain = plain_stack(spec, "mamba2")
    if plain is None:
        return None
    mixer, block, depth = plain
    width, eps = mixer["d_model"], block.get("norm_eps", 1e-5)
    inner = mixer["d_inner"] or mixer["expand"] * width
    size = mixer["head_dim"]
    if size is None:
        from hippodrome.layers.heads import head_size

        size = head_size(inner)
    groups = mixer["norm_groups"] or mixer["groups"]
    high = math.inf if mixer["dt_high"] is None else mixer["dt_high"]
    if mixer["learn_init"] or mixer["in_scales"] or groups != mixer["groups"] or mixer["d_inner"]:
        return None
    if name == "mamba2-hf":
        usual = {"norm": True, "norm_before_gate": False, "D_per_channel": False, "d_ssm": None}
        if any(mixer[k] != v for k, v in usual.items()) or mixer["norm_eps"] != eps:
            return None
        return {
            "architectures": ["Mamba2ForCausalLM"],
            "model_type": "mamba2",
            "vocab_size": spec["vocab_size"],
            "hidden_size": width,
            "state_size": mixer["d_state"],
            "num_hidden_layers": depth,
            "num_heads": inner // size,
            "head_dim": size,
            "n_groups": mixer["groups"],
            "expand": mixer["expand"],
            "conv_kernel": mixer["taps"],
            "chunk_size": 256,
            "layer_norm_epsilon": eps,
            "time_step_limit": [mixer["dt_low"], spelled(high)],
            "use_bias": mixer["proj_bias"],
            "use_conv_bias": mixer["conv_bias"],
            "hidden_act": "silu",
            "rms_norm": True,
            "tie_word_embeddings": spec["tie"],
            "residual_in_fp32": True,
        }
    if eps != 1e-5 or mixer["norm_eps"] != 1e-5:
        return None
    cell = {"layer": "Mamba2", "d_state": mixer["d_state"], "d_conv": mixer["taps"]}
    cell |= {"expand": mixer["expand"], "headdim": size, "ngroups": mixer["groups"]}
    cell |= {"rmsnorm": mixer["norm"], "norm_before_gate": mixer["norm_before_gate"]}
    cell |= {"D_has_hdim": mixer["D_per_channel"], "conv_bias": mixer["conv_bias"]}
    cell |= {"bias": mixer["proj_bias"], "dt_limit": [mixer["dt_low"], high]}
    cell |= {"d_ssm": mixer["d_ssm"]} if mixer["d_ssm"] else {}
    return {
        "d_model": width,
        "n_layer": depth,
        "vocab_size": spec["vocab_size"],
        "ssm_cfg": cell,
        "attn_layer_idx": [],
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": spec["tie"],
    }
