"""Run-time checks of an op's arguments: kernels index raw memory, so a wrong shape must stop at the door."""

from collections.abc import Mapping

import torch
from torch import Tensor


def check_arguments(
    op: str, arguments: Mapping[str, tuple[Tensor | None, str]], sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Hold every tensor to its shape, written in the legend's letters, and return the size of each letter.

    ``arguments`` maps a name to a tensor and its letters, such as ``"b t d"``; a digit stands for itself.
    Several forms are split by ``|``: the first with the right number of axes counts. None is skipped.
    ``sizes`` fixes letters from elsewhere. A name that is ``resets`` must hold booleans, all others floats.

    Raises:
        ValueError: a tensor has another number of axes, a size that contradicts an earlier one, or a dtype
            that does not fit; the message names the argument, what was expected and what came.
    """
    sizes = dict(sizes or {})
    for name, (x, forms) in arguments.items():
        if x is None:
            continue
        letters = next((f.split() for f in forms.split("|") if len(f.split()) == x.dim()), None)
        if letters is None:
            raise ValueError(
                f"{op}: {name} must have the axes ({forms.strip()}); got a tensor of shape {tuple(x.shape)}. "
                "Layout is batch, time, channels."
            )
        for axis, letter in enumerate(letters):
            size = x.shape[axis]
            expected = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
            if size != expected:
                raise ValueError(
                    f"{op}: {name} must have the axes ({' '.join(letters)}) with {letter} = {expected} as "
                    f"in the arguments before it; got shape {tuple(x.shape)}."
                )
        if name == "resets" and x.dtype != torch.bool:
            raise ValueError(f"{op}: resets must be a bool tensor (b t); got {x.dtype}. Use `resets.bool()`.")
        if name != "resets" and not x.is_floating_point():
            raise ValueError(
                f"{op}: {name} must be a real floating tensor; got {x.dtype}. Complex numbers are real "
                "tensors with a trailing axis of 2 (torch.view_as_real)."
            )
    return sizes
