"""Falcon-H1 checkpoints: Mamba-2 and attention side by side, and a factor at every turn."""

from collections.abc import Mapping
from typing import Any

from hippodrome.checkpoints.families import Reading
from hippodrome.checkpoints.families._fields import Fields, plain
from hippodrome.checkpoints.families._hybrid import heads, joined, mamba2, rope
from hippodrome.checkpoints.families.mamba import language
from hippodrome.config import stack_spec
from hippodrome.recipes.falcon_h1_0_5b import RECIPE

LAYOUTS = RECIPE.layouts


def layout(config: Mapping[str, Any]) -> str | None:
    """The layout of a configuration, or None."""
    return "falcon_h1" if config.get("model_type") == "falcon_h1" else None


def read(config: Mapping[str, Any]) -> Reading:
    """The spec of a configuration.

    Factors that cost nothing elsewhere go there: that of the keys into the scale of the scores, and that
    before Mamba-2 into those behind its first map, unless that map has a bias.
    """
    fields = Fields(config, "Falcon-H1")
    fields.only("hidden_act", "silu")
    width, eps = fields.whole("hidden_size"), fields.number("rms_norm_eps", 1e-5)
    # A file that says null means the usual width, one that says nothing the class's own.
    inner = fields.get("mamba_d_ssm") if "mamba_d_ssm" in config else 1024
    ssm = mamba2(fields, width, eps, None if inner is None else fields.whole("mamba_d_ssm", 1024))
    if fields.flag("projectors_bias", False) != ssm["proj_bias"]:
        raise ValueError(
            "Falcon-H1 checkpoints are read where projectors_bias and mamba_proj_bias are alike; this one "
            f"has {fields.get('projectors_bias', False)} and {ssm['proj_bias']}, which is not built here"
        )
    if fields.flag("mamba_rms_norm", False):
        ssm["norm_before_gate"] = fields.flag("mamba_norm_before_gate", True)
    else:
        ssm["norm"] = False
    before = fields.number("ssm_in_multiplier", 1.0)
    # A bias would be scaled too.
    folded, kept = (1.0, before) if ssm["proj_bias"] else (before, 1.0)
    factors = [folded * factor for factor in _factors(fields, "ssm_multipliers", 5)]
    if any(factor != 1.0 for factor in factors):
        ssm["in_scales"] = factors
    attention = {
        **heads(fields, width, 8),
        "rope_base": rope(fields)["rope_base"],
        "bias": fields.flag("attention_bias", False),
    }
    attention["scale"] = fields.number("key_multiplier", 1.0) * attention["head_dim"] ** -0.5
    gate, down = _factors(fields, "mlp_multipliers", 2)
    beside = {
        "scales": [fields.number("ssm_out_multiplier", 1.0), fields.number("attention_out_multiplier", 1.0)],
        "scales_in": [kept, fields.number("attention_in_multiplier", 1.0)],
    }
    options = {
        "mamba2": ssm,
        "attention": attention,
        "parallel": beside,
        "mlp": {
            "d_hidden": fields.whole("intermediate_size"),
            "gate_scale": gate,
            "bias": fields.flag("mlp_bias", False),
        },
    }
    stack = stack_spec(
        "mamba2-and-attention+mlp",
        width,
        2 * fields.whole("num_hidden_layers"),
        options=options,
        norm_eps=eps,
        scale={"mlp": down},
    )
    spec = language(stack, fields.whole("vocab_size"), fields.flag("tie_word_embeddings", False))
    spec["embedding_scale"] = fields.number("embedding_multiplier", 1.0)
    spec["logit_scale"] = fields.number("lm_head_multiplier", 1.0)
    return Reading(spec, {"heads": joined(attention)})


def _factors(fields: Fields, name: str, count: int) -> list[float]:
    """A list of factors, ones where there is none."""
    found = fields.get(name, [1.0] * count)
    numbers = [plain(x) for x in found] if isinstance(found, list) else []
    if len(numbers) != count or any(isinstance(x, bool) or not isinstance(x, int | float) for x in numbers):
        raise ValueError(
            f"config.json of a {fields.family} checkpoint: {name} are {count} numbers; got {found!r}"
        )
    return [float(x) for x in numbers]
