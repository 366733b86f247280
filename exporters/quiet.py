"""Keeps the chatter of native libraries off the screen without losing anybody else's words.

TensorFlow's and LiteRT's native code writes to file descriptor 2 whatever Python's logging says. For as long
as such a library works the descriptor leads to a file; `sys.stdout` and `sys.stderr` keep leading to the
screen, so a live display goes on. Lines that are no known chatter are shown afterwards.
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

# What these libraries say on every use, whatever the model.
CHATTER = re.compile(
    r"WARNING: All log messages before absl|[IW]0000 |INFO: (Created TensorFlow|Applying|Initialized)|"
    r"VERBOSE: |Applying Transformations|.*torchao|.*oneDNN custom operations|[IW]\d{4} .*torch/|"
    r".*FutureWarning|"
    r"\s+(return cls\.__new__|warnings\.warn)|\s*$"
)
# They log through Python too, before anybody has configured a handler.
CHATTY_LOGGERS = ("torchao", "torch.utils._pytree", "absl", "jax")
# Descriptors belong to the process: two captures at a time would restore each other's.
_LOCK = threading.RLock()


@dataclass
class Captured:
    """What was written to the descriptors; filled when the block ends."""

    text: str = ""


@contextmanager
def captured_output(streams: bool = False) -> Iterator[Captured]:
    """Divert descriptors 1 and 2 within the block, for this process; warnings are not shown either.

    Args:
        streams: divert `sys.stdout` and `sys.stderr` too; for a library that draws progress there, and for
            moments only, because a live display would stand still.

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
        originals = {number: os.dup(number) for number in (1, 2)}
        try:
            with _streams_led_to({} if streams else originals):
                for number in originals:
                    os.dup2(file.fileno(), number)
                try:
                    yield captured
                finally:
                    for stream in (sys.__stdout__, sys.__stderr__):
                        if stream is not None:
                            stream.flush()
                    for number, original in originals.items():
                        os.dup2(original, number)
            file.seek(0)
            captured.text = file.read().decode(errors="replace")
            rest = [line for line in captured.text.splitlines() if not CHATTER.match(line)]
            if rest and sys.exc_info()[0] is None:
                os.write(2, ("\n".join(rest) + "\n").encode())
        finally:
            for original in originals.values():
                os.close(original)


@contextmanager
def _streams_led_to(originals: dict[int, int]) -> Iterator[None]:
    """Let `sys.stdout` and `sys.stderr` write to these descriptors, where they wrote to 1 and 2."""
    replaced = {}
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or number not in originals or _descriptor(stream) != number:
            continue
        stream.flush()
        twin = open(  # noqa: SIM115 -- closed below
            originals[number], "w", buffering=1, encoding="utf-8", errors="replace", closefd=False
        )
        replaced[name] = (stream, twin)
        setattr(sys, name, twin)
    try:
        yield
    finally:
        for name, (stream, twin) in replaced.items():
            if getattr(sys, name) is twin:
                setattr(sys, name, stream)
            twin.close()


def _descriptor(stream: object) -> int:
    try:
        number: int = stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return -1
    return number
