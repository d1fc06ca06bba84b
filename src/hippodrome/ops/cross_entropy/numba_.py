"""Cross-entropy and its gradient on the CPU: a custom op around the fused Numba kernel."""

import torch
from torch import Tensor

from hippodrome.ops._arrays import memory
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.cross_entropy.reference import IGNORED

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel overwrites bfloat16, float32 and float64 logits on the CPU."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    if tensors[0] is not None and tensors[0].dtype == torch.float16:
        return "the Numba kernel writes into the logits, and cannot write float16."
    return None


@torch.library.custom_op("hippodrome::cross_entropy_", mutates_args=("logits",))
def _cross_entropy_(logits: Tensor, targets: Tensor, rate: Tensor, write: bool) -> Tensor:
    from hippodrome.ops.cross_entropy import _numba_kernel as kernel

    rows, vocab = logits.shape
    losses = torch.empty(rows, dtype=rate.dtype)
    if rows:
        # The kernel reads memory where a target says: one outside the vocabulary must stop here.
        outside = targets[(targets != IGNORED) & ((targets < 0) | (targets >= vocab))]
        if len(outside):
            raise ValueError(
                f"cross_entropy: targets must be indices below the vocabulary of {vocab}, or {IGNORED}; got "
                f"{int(outside[0])}. Check that the tokens and the model have one tokenizer."
            )
        run_tiles(
            kernel.losses_and_gradients,
            rows,
            memory(logits.view(-1)),
            memory(targets.contiguous()),
            float(rate),
            vocab,
            write,
            memory(losses),
        )
    return losses


@_cross_entropy_.register_fake
def _(logits, targets, rate, write):  # type: ignore[no-untyped-def]
    return rate.new_empty(logits.shape[:1])


def cross_entropy_(logits: Tensor, targets: Tensor, rate: Tensor | None) -> Tensor:
    """Losses; the dense logits become the gradient, where there is a rate. Arguments as at the door."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    factor = torch.ones((), dtype=wide) if rate is None else rate.to(wide)
    return _cross_entropy_(logits, targets, factor, rate is not None)
