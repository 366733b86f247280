"""One line of what a model is worth on samples that were tampered with."""

from __future__ import annotations

from device_bench.protocol import Record


class RobustnessRow(Record):
    """The task's metric under one kind of tampering.

    Args:
        kind: "clean", "fgsm", "pgd", or a corruption.
        strength: ε of an attack, severity of a corruption, 0 for none.
        original: of the float model.
        result: of the compressed one.
    """

    kind: str
    strength: float
    original: float
    result: float
