"""Keeps the chatter of heavy libraries off the screen without losing anybody else's words.

TensorFlow's and LiteRT's native code writes to file descriptor 2 whatever Python's logging says, and torch's
exporter prints graphs to `sys.stderr`. While such a library works, the descriptors lead to a file, and so do
`sys.stdout` and `sys.stderr` for the thread that works; other threads (a live display) still reach the
screen. Lines that are no known chatter are shown afterwards.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

# What these libraries say on every use, whatever the model.
CHATTER = re.compile(
    r"WARNING: All log messages before absl|[IW]0000 |INFO: (Created TensorFlow|Applying|Initialized)|"
    r"VERBOSE: |Applying Transformations|.*torchao|.*oneDNN custom operations|[IW]\d{4} .*torch/|"
    r".*FutureWarning|\s+(return cls\.__new__|warnings\.warn)|\s*$"
)
# They log through Python too, before anybody has configured a handler.
CHATTY_LOGGERS = ("torchao", "torch.utils._pytree", "torch.onnx", "absl", "jax", "onnxscript", "onnx_ir")
# Descriptors belong to the process: two captures at a time would restore each other's.
_LOCK = threading.RLock()


@dataclass
class Captured:
    """What was written; filled when the block ends."""

    text: str = ""

    def said(self, lines: int = 20) -> str:
        """The last lines that are no chatter."""
        return "\n".join([line for line in self.text.splitlines() if not CHATTER.match(line)][-lines:])


@contextmanager
def captured_output() -> Iterator[Captured]:
    """Divert what this thread prints and what native code writes within the block; warnings are not shown.

    Yields:
        what collects the text. It is complete after the block, also when the block raised.
    """
    captured = Captured()
    with _LOCK, tempfile.TemporaryFile() as file, warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        for name in CHATTY_LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        failed = True
        try:
            with _diverted(file.fileno()):
                yield captured
            failed = False
        finally:
            file.seek(0)
            captured.text = file.read().decode(errors="replace")
        rest = captured.said(lines=1000)
        if rest and not failed:
            os.write(2, f"{rest}\n".encode())


@contextmanager
def _diverted(sink: int) -> Iterator[None]:
    """Lead descriptors 1 and 2, and this thread's standard streams, to the descriptor `sink`."""
    numbers = {"stdout": 1, "stderr": 2}
    with ExitStack() as stack:
        written = stack.enter_context(os.fdopen(os.dup(sink), "w", buffering=1, encoding="utf-8"))
        originals = {}
        for name, number in numbers.items():
            stream = getattr(sys, name)
            if stream is not None:
                stream.flush()
            originals[number] = os.dup(number)
            stack.callback(os.close, originals[number])
        for name, number in numbers.items():
            stream = getattr(sys, name)
            if stream is None:
                continue
            screen = stream
            if _descriptor(stream) == number:
                # Descriptor 2 will lead elsewhere: other threads write to its duplicate.
                screen = stack.enter_context(
                    os.fdopen(os.dup(originals[number]), "w", buffering=1, encoding="utf-8", errors="replace")
                )
            split = _SplitByThread(name, written, screen)
            setattr(sys, name, split)
            stack.callback(_restore, name, split, stream)
        for number, original in originals.items():
            os.dup2(sink, number)
            stack.callback(os.dup2, original, number)
        yield


def _restore(name: str, split: _SplitByThread, stream: TextIO) -> None:
    split.retire()
    # Somebody else may have put a stream of their own there meanwhile; it is theirs to take away.
    if getattr(sys, name) is split:
        setattr(sys, name, stream)


class _SplitByThread:
    """A text stream that leads the thread which made it to one stream and all others to another.

    A log handler that was made meanwhile keeps it for good: once retired, it leads to whatever the standard
    stream of its name is by then.
    """

    def __init__(self, name: str, own: TextIO, others: TextIO) -> None:
        self._name = name
        self._thread = threading.get_ident()
        self._own: TextIO | None = own
        self._others: TextIO | None = others

    def retire(self) -> None:
        """Let go of both streams, which are about to be closed."""
        self._own = self._others = None

    def write(self, text: str) -> int:
        """Write where this thread's words belong."""
        return self._stream(self._own if threading.get_ident() == self._thread else self._others).write(text)

    def _stream(self, wanted: TextIO | None) -> TextIO:
        if wanted is not None:
            return wanted
        current = getattr(sys, self._name)
        stream: TextIO = getattr(sys, f"__{self._name}__") if current is self else current
        return stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream(self.__dict__.get("_others")), name)


def _descriptor(stream: object) -> int:
    try:
        number: int = stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return -1
    return number
