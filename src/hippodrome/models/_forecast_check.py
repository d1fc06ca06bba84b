"""What a forecaster fills in and refuses when it is built, a sentence each."""

from typing import Any, get_args

from torch import Tensor

from hippodrome.models._covariates import Covariates
from hippodrome.models._window import Normalization

HEADS = ("all", "last", "closed_loop")


def filled_in(
    backbone: Any, look_back: int, patch: int | None, stride: int | None, head: str | None
) -> tuple[int, int, str]:
    """Patch, stride and head, those that were left open as the backbone has it."""
    if head is None:
        head = "closed_loop" if hasattr(backbone, "closed_loop") else "all"
    whole = getattr(backbone, "tokens_are_variates", False)
    if patch is None:
        single = head == "closed_loop" or backbone is None
        patch = 1 if single else look_back if whole else min(16, look_back)
    if stride is None:
        stride = 1 if whole else max(1, patch // 2)
    return patch, stride, head


def check_numbers(
    channels: int,
    look_back: int,
    horizon: int,
    quantiles: tuple[float, ...],
    location: list[float] | None,
    scale: list[float] | None,
) -> None:
    """Raise where sizes, quantiles or statistics are none.

    Raises:
        ValueError: then.
    """
    if min(channels, look_back, horizon) < 1:
        raise ValueError(
            f"channels, look_back and horizon are 1 or more; got {channels}, {look_back} and {horizon}. "
            f"Correct the smallest."
        )
    check_scales(channels, quantiles, location, scale)


def check_scales(
    channels: int, quantiles: tuple[float, ...], location: list[float] | None, scale: list[float] | None
) -> None:
    """Raise where quantiles are no increasing levels, or statistics are not of each variate.

    Raises:
        ValueError: then.
    """
    if sorted(set(quantiles)) != list(quantiles) or not all(0 < level < 1 for level in quantiles):
        raise ValueError(
            f"quantiles are increasing levels inside (0, 1); got {quantiles}. Sort them, drop 0 and 1."
        )
    for name, values in (("location", location), ("scale", scale)):
        if values is not None and len(values) != channels:
            raise ValueError(
                f"{name} holds one number for each of the {channels} variates; got {len(values)}. Take "
                f"the train statistics of the same variates."
            )


def check_parts(
    backbone: Any,
    rows: int,
    look_back: int,
    patch: int,
    stride: int,
    words: tuple[str, str, str, str],
    positions: bool,
    shortcut: int | None,
) -> None:
    """Raise where backbone, patches and head do not fit one another. ``rows`` are a series' rows of tokens,
    ``words`` the head, the normalization, where covariates go and the error.

    Raises:
        ValueError: then.
    """
    if not 1 <= stride <= patch <= look_back:
        raise ValueError(
            f"patches lie inside the look-back and leave no gaps: 1 <= stride <= patch <= look_back; got "
            f"{stride}, {patch} and {look_back}. Shorten patch or stride."
        )
    known = {
        "head": HEADS,
        "normalization": get_args(Normalization),
        "covariates": ("added", "variates"),
        "error": ("squared", "absolute"),
    }
    for value, (name, values) in zip(words, known.items(), strict=True):
        if value not in values:
            raise ValueError(
                f"{name} is {', '.join(map(repr, values[:-1]))} or {values[-1]!r}; got {value!r}. Take one "
                f"of these."
            )
    head, _, covariates, _ = words
    if backbone is None:
        if shortcut is None:
            raise ValueError(
                "a forecaster without a backbone is its shortcut, a linear map of the window; got neither. "
                "Give shortcut=25, or a backbone."
            )
        return
    if head == "closed_loop" and not (hasattr(backbone, "closed_loop") and patch == 1 and look_back > 2):
        raise ValueError(
            f"a closed loop reads 3 steps or more one by one with a backbone that can run on; got "
            f"look_back={look_back}, patch={patch} and a {type(backbone).__name__}. Leave patch out and "
            f"build the backbone from a pattern such as closed_loop:space_time."
        )
    if head == "closed_loop" and covariates == "variates":
        raise ValueError(
            "a closed loop runs on for the variates alone; got covariates as rows beside them. Take "
            "covariates='added'."
        )
    if positions and getattr(backbone, "causal", True):
        raise ValueError(
            "learned positions number the patches of one window, and a causal backbone reads a stream that "
            "goes on. Leave positions out, or take a backbone that reads both ways."
        )
    if getattr(backbone, "variates", rows) != rows:
        raise ValueError(
            f"a backbone that reads all variates of a series together is built for as many as the data "
            f"has, {rows}; got one for {backbone.variates}. Give it variates={rows}."
        )


def check_inputs(
    covariates: Covariates | None,
    channels: int,
    inputs: Tensor,
    known: Tensor | None,
    static: Tensor | None,
    fresh: bool,
) -> None:
    """Raise where what is handed over is not what the model was built for. ``fresh`` starts a stream.

    Raises:
        ValueError: then.
    """
    moving = 0 if covariates is None else covariates.observed + covariates.known
    if inputs.shape[-1] != channels + moving:
        raise ValueError(
            f"the inputs hold {channels} variates and {moving} covariates; got {inputs.shape[-1]} columns. "
            f"Give the columns that the model learned from."
        )
    wanted = 0 if covariates is None else covariates.known
    if (0 if known is None else known.shape[-1]) != wanted:
        raise ValueError(
            f"this model reads {wanted} covariates that are known ahead; got "
            f"{'none' if known is None else known.shape[-1]}. Give the future of the same ones."
        )
    wanted = 0 if covariates is None or not fresh else covariates.static
    if (0 if static is None else static.shape[-1]) != wanted and (fresh or static is not None):
        raise ValueError(
            f"this model reads {wanted} static covariates at the start of a stream; got "
            f"{'none' if static is None else static.shape[-1]}. Give the same ones, once."
        )


def check_call(
    resets: Tensor | None,
    dt: Tensor | None,
    timed: bool,
    t: int,
    fresh: bool,
    look_back: int,
    stride: int,
) -> None:
    """Raise where a call is none that a forecaster takes. ``timed`` is one that can use time steps.

    Raises:
        ValueError: then.
    """
    if resets is not None:
        raise ValueError(
            "a forecaster reads one window, so it takes no resets. Split the series where it starts anew."
        )
    if dt is not None and not timed:
        raise ValueError(
            "time steps reach a causal backbone whose mixers have continuous time, s4d or mamba say, and "
            "this forecaster has none. Resample the series to even steps, or choose such a model."
        )
    if fresh and (t < look_back or (t - look_back) % stride):
        raise ValueError(
            f"a fresh forecast reads look_back={look_back} steps, or more by a multiple of "
            f"stride={stride}; got {t}. Cut the series, or fill its left with NaN."
        )
    if not fresh and t % stride:
        raise ValueError(
            f"a running forecast moves on by multiples of stride={stride} steps; got {t}. Collect "
            f"the observations, or build the model with stride=1."
        )
