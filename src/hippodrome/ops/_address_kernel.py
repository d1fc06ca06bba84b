"""Arrays inside Numba kernels made from addresses, which a tensor hands over for 60 ns, not a microsecond.

A kernel of one token runs for a few microseconds, as long as the making of the NumPy arrays of its arguments.
It takes ``tensor.data_ptr()`` instead and a sample array of the dtype, and asks ``at`` for the array. An
absent tensor has the address 0.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic as _intrinsic

intrinsic: Any = _intrinsic
SAMPLES = {
    torch.float32: np.zeros(1, np.float32),
    torch.float64: np.zeros(1, np.float64),
    torch.bfloat16: np.zeros(1, np.uint16),
}


@intrinsic
def _pointer(typingctx, address):
    def generate(context, builder, sig, args):
        number = context.cast(builder, args[0], sig.args[0], types.intp)
        return builder.inttoptr(number, ir.IntType(8).as_pointer())

    return types.voidptr(address), generate


@njit(nogil=True)
def at(address, sample):
    """The memory from an address on as a flat array of the sample's dtype; the kernel knows where it ends."""
    return carray(_pointer(address), (1 << 40,), sample.dtype)
