"""Runs in blocks of time: for scans whose tensors over all modes and tokens would not fit at once."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hippodrome.mixers import _lti

Block = Callable[..., tuple[Tensor, Tensor]]


def run_in_blocks(block: Block, h: Tensor, *sequences: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs (b, t, d) and last state of ``block(h, *parts) -> (y, h)`` over parts of the time axis 1.

    ``h`` (b, d, n, 2) is the state before the first token; a sequence that is None is handed on as None. A
    block is as long as ``_lti.BLOCK`` complex numbers allow. With gradients and more than one block each is
    computed again on the way back, so that the memory of one block is all that is held.
    """
    t = next(x.shape[1] for x in sequences if x is not None)
    length = max(1, _lti.BLOCK // (h.numel() // 2))
    outputs = []
    for start in range(0, t, length):
        parts = [None if x is None else x[:, start : start + length] for x in sequences]
        if torch.is_grad_enabled() and t > length:
            y, h = checkpoint(block, h, *parts, use_reentrant=False)
        else:
            y, h = block(h, *parts)
        outputs.append(y)
    return torch.cat(outputs, 1), h
