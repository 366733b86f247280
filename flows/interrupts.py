"""Ctrl-C, remembered."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class CtrlC:
    """Within the block, `heard` tells whether Ctrl-C was pressed, and what it broke counts as an interrupt.

    Prefect turns a KeyboardInterrupt that comes while it talks to its server into errors of its own, which
    would look like a failure of the run. Once heard, further presses are ignored: the process is ending.
    """

    def __init__(self) -> None:
        self.heard = False

    def __enter__(self) -> Self:
        # Python lets only the main thread have signal handlers.
        self._here = threading.current_thread() is threading.main_thread()
        if self._here:
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._here:
            signal.signal(signal.SIGINT, signal.SIG_IGN if self.heard else self._before)
        if self.heard and isinstance(error, Exception):
            raise KeyboardInterrupt from error

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        signal.default_int_handler(number, frame)
