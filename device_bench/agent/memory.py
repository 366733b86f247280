"""An idle agent holds little, whatever it held while it worked."""

from __future__ import annotations

import ctypes
import gc


def give_back_memory() -> None:
    """Return what was freed to the system.

    The samples of one long measurement are millions of small objects; glibc keeps the pages they were on
    until it is asked (malloc_trim(3)). Other C libraries are left to their own ways.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
