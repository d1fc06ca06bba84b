"""Mamba checkpoints: the authors' own files and those of ``transformers``."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields
from hippodrome.config import stack_spec
from hippodrome.recipes.mamba_130m import RECIPE

LAYOUTS = RECIPE.layouts


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    if config.get("model_type") == "mamba":
        return "mamba-hf"
    return "mamba" if authors_layer(config) == "Mamba1" else None


def authors_layer(config: Mapping[str, Any]) -> Any:
    """The kind of layer in a configuration of the authors; None in one that is not theirs."""
    own = "ssm_cfg" in config and "d_model" in config and "n_layer" in config
    return cell_of(Fields(config, "Mamba")).get("layer", "Mamba1") if own else None


def cell_of(fields: Fields) -> dict[str, Any]:
    """What the authors' configuration says of the layers."""
    found = fields.get("ssm_cfg", {})
    if not isinstance(found, Mapping):
        raise ValueError(f"config.json of a {fields.family} checkpoint: ssm_cfg is a table; got {found!r}")
    return dict(found)


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration of either layout."""
    return Reading(_theirs(config) if config.get("model_type") == "mamba" else _authors(config))


def _theirs(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = Fields(config, "Mamba")
    fields.only("hidden_act", "silu")
    width = fields.whole("hidden_size")
    options = {
        "d_state": fields.whole("state_size", 16),
        "taps": fields.whole("conv_kernel", 4),
        "expand": fields.whole("expand", 2),
        "dt_rank": rank(fields, width),
        "conv_bias": fields.flag("use_conv_bias", True),
        "proj_bias": fields.flag("use_bias", False),
    }
    return language(
        stack_spec(
            "mamba",
            width,
            fields.whole("num_hidden_layers"),
            options={"mamba": {**options, **own_width(fields, width)}},
            mlp=False,
            norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        ),
        fields.whole("vocab_size"),
        fields.flag("tie_word_embeddings", True),
    )


def own_width(fields: Fields, width: int) -> dict[str, int]:
    """The inner width where the configuration says another than ``expand`` times the outer one.

    Falcon-Mamba's says expand 16 and an intermediate size of 8192, twice its width: the latter holds.
    """
    inner = fields.whole("intermediate_size", fields.whole("expand", 2) * width)
    return {} if inner == fields.whole("expand", 2) * width else {"d_inner": inner}


def rank(fields: Fields, width: int) -> int:
    """The rank of the step sizes, a sixteenth of the width, rounded up, where it says "auto"."""
    found = fields.get("time_step_rank", "auto")
    return ceil(width / 16) if found == "auto" else fields.whole("time_step_rank")


def _authors(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = Fields(config, "Mamba")
    check_authors(fields)
    width = fields.whole("d_model")
    cell = cell_of(fields)
    cell.pop("layer", None)
    names = {"d_state": "d_state", "d_conv": "taps", "expand": "expand", "dt_rank": "dt_rank"}
    names |= {"conv_bias": "conv_bias", "bias": "proj_bias"}
    # Where training began, and which of their kernels ran.
    began = {"dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path"}
    unknown = sorted(set(cell) - set(names) - began)
    if unknown:
        raise ValueError(f"ssm_cfg of a Mamba checkpoint has {unknown[0]!r}, which is not built here")
    kept = {k: v for k, v in cell.items() if k in names and not (k == "dt_rank" and v == "auto")}
    options = {names[k]: v for k, v in kept.items()}
    options.setdefault("dt_rank", ceil(width / 16))
    return language(
        stack_spec("mamba", width, fields.whole("n_layer"), options={"mamba": options}, mlp=False),
        padded(fields),
        fields.flag("tie_embeddings", True),
    )


def check_authors(fields: Fields) -> None:
    """Refuse what the authors' configuration may say and is not built."""
    fields.only("rms_norm", True)
    fields.only("d_intermediate", 0)
    if fields.get("attn_layer_idx", []):
        fields.only("attn_layer_idx", [])


def padded(fields: Fields) -> int:
    """The authors' vocabulary, padded to a multiple as their model pads it: 50277 words make 50280 rows."""
    multiple = fields.whole("pad_vocab_size_multiple", 8)
    return -(-fields.whole("vocab_size") // multiple) * multiple


def language(stack: dict[str, Any], words: int, tie: bool) -> dict[str, Any]:
    """The spec of a language model around a stack."""
    return {"kind": "language", "vocab_size": words, "tie": tie, "backbone": stack, "bytes_per_token": None}


def write(spec: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """The configuration of a model of ours in a layout; None where the model is no plain Mamba."""
    plain = plain_stack(spec, "mamba")
    if plain is None:
        return None
    mixer, block, depth = plain
    width = mixer["d_model"]
    rank_ = mixer["dt_rank"] or ceil(width / 16)
    usual = {"norms": "none", "select_B": True, "select_C": True, "groups": 1, "A_init": "s4d-real"}
    usual |= {"dynamics": "free"}
    if any(mixer.get(k, v) != v for k, v in usual.items()):
        return None
    common = {"tie": spec["tie"], "words": spec["vocab_size"]}
    if name == "mamba-hf":
        return {
            "architectures": ["MambaForCausalLM"],
            "model_type": "mamba",
            "vocab_size": common["words"],
            "hidden_size": width,
            "state_size": mixer["d_state"],
            "num_hidden_layers": depth,
            "layer_norm_epsilon": block.get("norm_eps", 1e-5),
            "expand": mixer["expand"],
            "conv_kernel": mixer["taps"],
            "use_bias": mixer["proj_bias"],
            "use_conv_bias": mixer["conv_bias"],
            "hidden_act": "silu",
            "time_step_rank": rank_,
            "intermediate_size": mixer["d_inner"] or mixer["expand"] * width,
            "tie_word_embeddings": common["tie"],
            "residual_in_fp32": True,
        }
    if mixer["d_inner"] or block.get("norm_eps", 1e-5) != 1e-5:
        return None
    cell = {"d_state": mixer["d_state"], "d_conv": mixer["taps"], "expand": mixer["expand"]}
    cell |= {"dt_rank": rank_, "conv_bias": mixer["conv_bias"], "bias": mixer["proj_bias"]}
    return {
        "d_model": width,
        "n_layer": depth,
        "vocab_size": common["words"],
        "ssm_cfg": cell,
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": common["tie"],
    }


def plain_stack(spec: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], dict[str, Any], int] | None:
    """The mixer and block of a stack of blocks that all are the same mixer and nothing else; else None.

    ``spec`` has every default written out.
    """
    stack = spec["backbone"]
    if spec["kind"] != "language" or stack["kind"] != "stack" or not stack["norm"]:
        return None
    if (spec["embedding_scale"], spec["logit_scale"], spec["logit_cap"]) != (1, 1, None):
        return None
    blocks = stack["blocks"]
    first = blocks[0]
    if any(block != first for block in blocks):
        return None
    mixer = first["mixer"]
    plain = first["mlp"] is None and first["norm"] == "rms" and first["scale"] == 1
    if mixer["kind"] != kind or not plain:
        return None
    return mixer, first, len(blocks)
