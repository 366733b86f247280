"""What a person sees on standard error while a bench works."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Waiting:
    """One line that says what goes on, and goes when it is over; without a terminal, a line for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = ""
        self._said = ""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, step: str) -> None:
        """A step begins."""
        self._step = step
        self._progress.reset(self._task, description=step)
        self._say(f"{step} …")

    def tell(self, text: str) -> None:
        """What goes on within the step."""
        self._progress.update(self._task, description=f"{self._step}: {text}")
        self._say(f"  {text}")

    def _say(self, line: str) -> None:
        # The same words again and again, as from a poll, are said once.
        if not self._console.is_terminal and line != self._said:
            self._console.print(line, highlight=False, markup=False)
        self._said = line
