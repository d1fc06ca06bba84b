"""Where the layers of a hybrid stand: symbols such as ``M-M*-``, shares of each kind, periods and offsets."""

import re

SYMBOLS = {"M": "mamba2", "*": "attention", "-": "mlp", "E": "moe"}
"""One character for each layer, as published hybrids write them, and the kind that it stands for."""

_WRITTEN = re.compile(r"[M*E-]+")
_SHARES = re.compile(r"M(\d+)(?:\*(\d*\.?\d+))?(?:-(\d*\.?\d+))?")


def from_symbols(text: str) -> tuple[str, ...] | None:
    """The kinds of a pattern in symbols, or None where the text is no such pattern.

    ``M-M*`` is mamba2, mlp, mamba2, attention. ``M56*.08-.5`` is what ``allocate(56, .08, .5)`` gives; either
    share may be left out. Raises ValueError where the shares cannot be met.
    """
    shares = _SHARES.fullmatch(text)
    if shares:
        text = allocate(int(shares[1]), float(shares[2] or 0), float(shares[3] or 0))
    return tuple(SYMBOLS[symbol] for symbol in text) if _WRITTEN.fullmatch(text) else None


def allocate(layers: int, attention: float, mlp: float) -> str:
    """The symbols of a hybrid of Mamba-2 with these shares of attention and perceptrons, evenly spread.

    Attention layers are put between equal stretches of Mamba-2; perceptrons then take the place of Mamba-2
    layers, likewise evenly. The rule of Mamba-2-Hybrid as its authors' code has it (Waleffe et al. 2024, "An
    empirical study of Mamba-based language models", arXiv 2406.07887): a walk over the layers with a counter,
    which for a few sizes (45 layers, a share of .7) ends one layer short of a share.

    Args:
        layers: how many there are in all, each with one residual branch.
        attention: their share that is attention.
        mlp: their share that is perceptrons.

    Raises:
        ValueError: no layers, a share outside 0 to 1, or shares that leave less than nothing for Mamba-2.
    """
    if layers < 1:
        raise ValueError(f"a hybrid has one layer or more; got {layers}")
    for name, share in (("attention", attention), ("mlp", mlp)):
        if not 0 <= share <= 1:
            raise ValueError(f"the share of {name} layers lies between 0 and 1; got {share}")
    wanted, perceptrons = round(layers * attention), round(layers * mlp)
    if attention + mlp > 1 or wanted + perceptrons > layers:
        raise ValueError(
            f"the shares of attention and mlp add up to 1 at most, and so do the layers rounded from them; "
            f"got {attention} and {mlp}, {wanted} and {perceptrons} of {layers} layers. Take less of one"
        )
    placed = ["M"] * layers
    _spread(placed, "*", (layers - wanted) / (wanted + 1))
    if perceptrons:
        _spread(placed, "-", (layers - wanted - perceptrons) / perceptrons)
    return "".join(placed)


def _spread(placed: list[str], symbol: str, stretch: float) -> None:
    """Write a symbol over some of the Ms, about ``stretch`` of which stay before each."""
    left = stretch
    for i, there in enumerate(placed):
        if there != "M":
            continue
        if left < 0.5:
            placed[i] = symbol
            left += stretch
        else:
            left -= 1


def periodic(
    depth: int,
    attention_period: int = 8,
    attention_offset: int = 4,
    expert_period: int = 2,
    expert_offset: int = 1,
    mixer: str = "mamba",
) -> tuple[str, ...]:
    """The kinds of a hybrid whose layers are a mixer, then a perceptron or a mixture of experts: two names.

    Layer i, from 0, mixes by attention where i mod ``attention_period`` is ``attention_offset``, else by
    ``mixer``; its second half is a mixture where i mod ``expert_period`` is ``expert_offset``. What is left
    out is Jamba's (Lieber et al. 2024, arXiv 2403.19887, section 3.1).

    Raises:
        ValueError: no layers, or an offset that its period never reaches.
    """
    if depth < 1:
        raise ValueError(f"the depth counts layers, so it is 1 or more; got {depth}")
    for what, period, offset in (
        ("attention", attention_period, attention_offset),
        ("expert", expert_period, expert_offset),
    ):
        if not 0 <= offset < period:
            raise ValueError(
                f"{what}_offset is one of 0 to {what}_period - 1; got {offset} for a period of {period}"
            )
    return tuple(
        name
        for i in range(depth)
        for name in (
            "attention" if i % attention_period == attention_offset else mixer,
            "moe" if i % expert_period == expert_offset else "mlp",
        )
    )
