"""What ONNX Runtime says its CPU arena allocated, read from what it logs.

The Python API of 1.31 has no call for an arena's statistics. The library tells them in its log, at the level
"info", whenever the arena grows, and it does not grow in the steady state that is measured. A measuring
process writes its standard error to a file; the log is read back from there.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat

_TOTAL = re.compile(rb"bfc_arena\.cc.*Total allocated bytes: (\d+)")
_RESERVED = re.compile(rb"bfc_arena\.cc.*Reserving memory in BFCArena for Cpu size: (\d+)")


class ArenaLog:
    """The log from now on. `readable`: whether this process can read its own standard error back.

    Args:
        descriptor: of standard error.
    """

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self.readable = _is_readable_file(descriptor)
        self._start = os.fstat(descriptor).st_size if self.readable else 0

    def total_bytes(self) -> int | None:
        """What the arena has taken from the system by now; None where the log does not tell.

        It grows by a mebibyte or more at a time. Weights that stay where the file was read to are not in it.
        """
        if not self.readable:
            return None
        length = os.fstat(self._descriptor).st_size - self._start
        text = os.pread(self._descriptor, max(0, length), self._start)
        totals = _TOTAL.findall(text)
        if totals:
            return int(totals[-1])
        # An arena that never had to grow holds what was reserved for initializers.
        reserved = _RESERVED.findall(text)
        return sum(map(int, reserved)) if reserved else None


def _is_readable_file(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        return False
    return stat.S_ISREG(mode) and access == os.O_RDWR
