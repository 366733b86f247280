"""What a person sees while a run goes on."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

# What the library warns of belongs on this screen; Prefect's own console lines are off.
LOGGERS = ("device_bench", "pipeline", "exporters", "flows")


class Screen:
    """The stage at work: what it is, how far, the time left, what goes on, and what is best so far.

    Finished stages stay above as one line each. Where output is not a terminal, there are plain lines only.
    """

    def __init__(self, console: Console, folder: Path | None = None) -> None:
        self._console = console
        self._folder = folder
        self._stage = _Stage("", 1.0)
        self._best = ""
        self._progress = Progress(
            BarColumn(bar_width=40),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
        )
        self._live = Live(self._drawn(), console=console, refresh_per_second=4, transient=True)
        self._alive = console.is_terminal
        self._warnings = _Warnings(console)
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._console.print(f"run folder: {self._folder}", highlight=False, soft_wrap=True)
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self._warnings)
        if self._alive:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self._warnings)
        if self._alive:
            self._live.stop()

    def stage(self, name: str, total: float) -> None:
        """A stage begins; the one before it is finished."""
        self._finish()
        self._stage = _Stage(name, max(total, 1e-9))
        self._stage.task = self._progress.add_task(name, total=total)
        if not self._alive:
            self._console.print(f"{name} …", highlight=False, markup=False)
        self._draw()

    def advance(self, done: float, text: str = "") -> None:
        """`done` steps of the stage are finished."""
        stage = self._stage
        if stage.task is None:
            return
        stage.text = text
        self._progress.update(stage.task, completed=done)
        quarter = int(4 * done / stage.total)
        if not self._alive and quarter > stage.told:
            stage.told = quarter
            line = text or f"{100 * done / stage.total:.0f} %"
            self._console.print(f"  {line}", highlight=False, markup=False)
        self._draw()

    def best(self, text: str) -> None:
        """The best so far stands below the stage."""
        if not self._alive and text != self._best:
            self._console.print(f"  best so far: {text}", highlight=False, markup=False)
        self._best = text
        self._draw()

    def note(self, text: str) -> None:
        """A note stays on the screen above the live lines, and goes into the report."""
        self.notes.append(text)
        self._console.print(f"note: {text}", highlight=False, markup=False)

    def _finish(self) -> None:
        stage, self._stage = self._stage, _Stage("", 1.0)
        if stage.task is None:
            return
        self._progress.remove_task(stage.task)
        self._draw()
        if self._alive:
            seconds = time.monotonic() - stage.started
            text = Text.assemble(("✓ ", "green"), (stage.name, "bold"), f", {seconds:.0f} s")
            self._console.print(text.append(f": {stage.text}" if stage.text else ""), highlight=False)

    def _draw(self) -> None:
        if self._alive:
            self._live.update(self._drawn(), refresh=True)

    def _drawn(self) -> Group:
        lines: list[RenderableType] = []
        if self._stage.task is not None:
            lines += [Text(self._stage.name, style="bold"), self._progress]
            lines.append(Text(self._stage.text, style="dim", no_wrap=True, overflow="ellipsis"))
        if self._best:
            lines.append(Text(f"best so far: {self._best}", style="green"))
        return Group(*lines)


@dataclass
class _Stage:
    """The stage at work; `told` is the last quarter of it that was printed where there is no terminal."""

    name: str
    total: float
    text: str = ""
    task: TaskID | None = None
    told: int = -1
    started: float = field(default_factory=time.monotonic)


class _Warnings(logging.Handler):
    """Shows the library's warnings on the run's screen."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """One line, above the live ones."""
        self._console.print(f"warning: {record.getMessage()}", style="yellow", highlight=False, markup=False)
