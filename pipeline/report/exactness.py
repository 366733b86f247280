"""The report's lines on how exactly INT8 files compute what their numbers say."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.report import wording
from pipeline.result import RunResult


@dataclass(frozen=True)
class ExactnessLine:
    """One file on one target, in words."""

    target: str
    form: str
    outputs: str
    parts_at: str
    alone: str
    alone_at: str


def exactness_lines(result: RunResult) -> list[ExactnessLine]:
    """A line for each file that was looked at."""
    return [
        ExactnessLine(
            target=target,
            form=wording.FORM_NAMES[kind],
            outputs=f"{found.within_one_step:.2f} %",
            parts_at=found.parts_at or "nowhere",
            alone=f"{found.least_alone:.2f} %",
            alone_at=found.least_alone_at if found.least_alone < 100.0 else "none",
        )
        for target, outcome in result.targets.items()
        for kind, entry in wording.forms(outcome).items()
        if (found := entry.exactness) is not None
    ]
