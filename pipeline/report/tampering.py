"""The report's lines on samples that were tampered with."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.result import RunResult


@dataclass(frozen=True)
class TamperedLine:
    """One kind at one strength, in words."""

    kind: str
    strength: str
    original: str
    chosen: str
    difference: str


def tampered_lines(result: RunResult) -> dict[str, list[TamperedLine]]:
    """The lines of each target that has some."""
    return {
        target: [
            TamperedLine(
                kind=row.kind.upper() if row.kind in ("fgsm", "pgd") else row.kind,
                strength=_strength(row.kind, row.strength),
                original=f"{row.original:.2f}",
                chosen=f"{row.result:.2f}",
                difference=f"{row.result - row.original:+.2f}".replace("-", "−"),
            )
            for row in found.robustness
        ]
        for target, found in result.targets.items()
        if found.robustness
    }


def _strength(kind: str, strength: float) -> str:
    if kind == "clean":
        return ""
    if kind in ("fgsm", "pgd"):
        return f"ε {strength * 255:.0f}/255"
    return f"severity {strength:.0f}"
