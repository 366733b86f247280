"""How a run tells whoever watches where it is."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Reporter(Protocol):
    """Hears of stages and of steps within them. Implementations draw; they never change the run."""

    notes: list[str]

    def stage(self, name: str, total: float) -> None:
        """A stage begins that takes `total` steps."""
        ...

    def advance(self, done: float, text: str = "") -> None:
        """`done` steps of the current stage are finished; `text` says what is going on."""
        ...

    def best(self, text: str) -> None:
        """The best found so far, in words."""
        ...

    def note(self, text: str) -> None:
        """Something the user should know; it stays on the screen and goes into the report."""
        ...


class Silent:
    """A reporter that draws nothing and keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, total: float) -> None:
        """Ignored."""

    def advance(self, done: float, text: str = "") -> None:
        """Ignored."""

    def best(self, text: str) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Kept."""
        self.notes.append(text)


current_reporter: ContextVar[Reporter | None] = ContextVar("current_reporter", default=None)


def reporter() -> Reporter:
    """The reporter of this run; a silent one where nobody watches."""
    found = current_reporter.get()
    if found is None:
        found = Silent()
        current_reporter.set(found)
    return found
