"""The C library's allocator, told to keep the memory that large tensors leave behind."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""The numbers of these parameters in glibc's ``malloc.h``."""
_KEPT = 2**31 - 1
_GROWTH = 2**28


def keep_memory() -> bool:
    """Have the C library keep freed memory for the next allocation; returns whether it obeyed.

    As installed, glibc takes every large tensor from the system anew and gives it back when the tensor dies,
    and the system fills each page with zeros at its first touch: about an eighth of a training step's time
    with a vocabulary of 50,000. Call this once, before large tensors are made; the process then stays as
    large as it ever was. The command line does it for every verb. Under another C library nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _GROWTH))
    return sum(library.mallopt(name, value) for name, value in settings) == len(settings)
