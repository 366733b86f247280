"""What a run tells when nobody watches: lines in the flow run's log, which Prefect's pages show."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx

from pipeline.progress import current_reporter

if TYPE_CHECKING:
    from prefect import State

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


def unattended(logger: Logger, body: Callable[[], str]) -> State[None]:
    """The final state of a flow that nobody watches.

    Args:
        logger: what the flow reports goes there.
        body: the flow; returns what its state shall say.

    Returns:
        Completed; Crashed where Prefect's server went away, no fault of the run: `server up` schedules
        it again.
    """
    from prefect.states import Completed, Crashed

    token = current_reporter.set(Logbook(logger))
    try:
        return Completed(message=body())
    except httpx.TransportError as error:
        return Crashed(message=f"Prefect's server did not answer ({error!r})")
    finally:
        current_reporter.reset(token)
