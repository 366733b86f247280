"""What a run tells when nobody watches: lines in the flow run's log, which Prefect's pages show."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.progress import current_reporter

Logger = logging.Logger | logging.LoggerAdapter[Any]


class Logbook:
    """A reporter that writes stages, notes and every new best to a logger; steps are left out."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._best = ""
        self.notes: list[str] = []

    def stage(self, name: str, total: float) -> None:
        """A line for each stage."""
        self._logger.info("%s …", name)

    def advance(self, done: float, text: str = "") -> None:
        """Ignored: tasks have lines of their own."""

    def best(self, text: str) -> None:
        """A line where it changed."""
        if text and text != self._best:
            self._best = text
            self._logger.info("best so far: %s", text)

    def note(self, text: str) -> None:
        """A line, kept for the report."""
        self.notes.append(text)
        self._logger.warning("note: %s", text)


@contextmanager
def logged(logger: Logger) -> Iterator[None]:
    """Within the block, what runs report goes to `logger`."""
    token = current_reporter.set(Logbook(logger))
    try:
        yield
    finally:
        current_reporter.reset(token)
