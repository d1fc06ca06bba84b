"""What the configurations of hybrids have in common: heads of attention, rotary positions, activations."""

from collections.abc import Iterable, Mapping
from typing import Any

from hippodrome.checkpoints.families._fields import Fields, plain
from hippodrome.checkpoints.families.mamba2 import limits

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
"""Activations by their names there, and what they are called here."""

LAYERS = {
    "mamba": "mamba2",
    "linear_attention": "mamba2",
    "attention": "attention",
    "full_attention": "attention",
    "mlp": "mlp",
    "moe": "moe",
}
"""Kinds of layers, by their older and newer names there."""


def activation(fields: Fields, name: str, default: str) -> str:
    """The name here of an activation. Raises ValueError for one that is not built."""
    fields.only(name, default, *ACTIVATIONS)
    return ACTIVATIONS[fields.text(name, default)]


def heads(fields: Fields, width: int, kv_heads: int | None = 8, size: int | None = None) -> dict[str, int]:
    """The heads of attention as its options here.

    ``kv_heads`` is what a file means that does not say ``num_key_value_heads``; one that says null means as
    many as of queries, and so does None. Heads have ``size`` channels; None takes ``head_dim``, or the
    width's share where the file has none.
    """
    count = fields.whole("num_attention_heads")
    if "num_key_value_heads" in fields.config:
        kv_heads = None
    if size is None:
        size = fields.whole("head_dim", max(1, width // count))
    held = fields.whole("num_key_value_heads", count if kv_heads is None else kv_heads)
    return {"heads": count, "kv_heads": held, "head_dim": size}


def joined(attention: Mapping[str, Any]) -> list[int]:
    """The sizes of queries, keys and values, which are three matrices there and one here."""
    size = attention["head_dim"]
    return [attention["heads"] * size, attention["kv_heads"] * size, attention["kv_heads"] * size]


def rope(fields: Fields, share: float = 1.0) -> dict[str, float]:
    """Rotary positions as options of attention: their base, and the share of channels where not all turn.

    Newer configurations hold a table ``rope_parameters``, older ones ``rope_theta`` beside ``rope_scaling``.
    ``share`` is that where the table says none.

    Raises:
        ValueError: positions that are scaled, which is not built, or fields of another type.
    """
    table = fields.get("rope_parameters", {})
    scaling = fields.get("rope_scaling", {})
    for name, held in (("rope_parameters", table), ("rope_scaling", scaling)):
        if not isinstance(held, Mapping):
            raise ValueError(f"config.json of a {fields.family} checkpoint: {name} is a table; got {held!r}")
        kind = held.get("rope_type", held.get("type", "default"))
        if kind != "default":
            raise ValueError(
                f"{fields.family} checkpoints are read with rotary positions as they are; {name} of this "
                f"one scales them ({kind!r}), which is not built here"
            )
    own = Fields({k: plain(v) for k, v in table.items()}, fields.family)
    base = own.number("rope_theta", fields.number("rope_theta", 10000.0))
    turned = own.number("partial_rotary_factor", share)
    return {"rope_base": base, **({} if turned == 1.0 else {"rope_share": turned})}


def mamba2(fields: Fields, width: int, eps: float, inner: int | None = None) -> dict[str, Any]:
    """The options of Mamba-2, ``inner`` channels of all heads together; None takes mamba_expand widths.

    Raises ValueError where the heads do not make up those channels.
    """
    whole = fields.whole("mamba_expand", 2) * width if inner is None else inner
    count, size = fields.whole("mamba_n_heads", 128), fields.get("mamba_d_head", "auto")
    size = whole // count if size == "auto" else fields.whole("mamba_d_head")
    if size * count != whole:
        said = "mamba_expand times hidden_size" if inner is None else "mamba_d_ssm"
        raise ValueError(
            f"config.json of a {fields.family} checkpoint has mamba_n_heads times mamba_d_head equal to "
            f"{said}; got {count} times {size}, and {whole}"
        )
    return {
        "d_state": fields.whole("mamba_d_state", 256),
        "taps": fields.whole("mamba_d_conv", 4),
        **({"expand": fields.whole("mamba_expand", 2)} if inner is None else {"d_inner": inner}),
        "head_dim": size,
        "groups": fields.whole("mamba_n_groups", 1),
        "norm_eps": eps,
        "conv_bias": fields.flag("mamba_conv_bias", True),
        "proj_bias": fields.flag("mamba_proj_bias", False),
        **limits(fields.get("time_step_limit", [0.0, float("inf")])),
    }


def natural(fields: Fields, name: str, default: int) -> int:
    """A whole number from 0 on."""
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            f"config.json of a {fields.family} checkpoint: {name} is a whole number from 0 on; got {value!r}"
        )
    return value


def only_used(options: Mapping[str, Any], kinds: Iterable[str]) -> dict[str, Any]:
    """The options of the kinds that a model has."""
    inside = set(kinds)
    return {kind: given for kind, given in options.items() if kind in inside}
