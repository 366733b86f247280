"""How far a run is, as a share of a bar."""

from __future__ import annotations

from collections import Counter

from flows.compression.job import CompressJob

# Where each kind of stage begins and ends on the bar, in percent, by the first word of its name. These are
# parts of the bar and not of the time, of which recovery takes most; what a run skips is jumped over.
PARTS = {
    "prepare": (0.0, 5.0),
    "first": (5.0, 8.0),
    "probes": (8.0, 20.0),
    "trials": (20.0, 50.0),
    "rehearse": (50.0, 60.0),
    "recover": (60.0, 90.0),
    "prove": (90.0, 99.0),
    "report": (99.0, 100.0),
}


class Milestones:
    """Follows a run through its stages.

    Args:
        job: says how often a stage can come.
    """

    def __init__(self, job: CompressJob) -> None:
        self._expected = {
            "rehearse": job.rehearsals,
            "recover": job.recoveries * len(job.targets),
            "prove": len(job.targets),
        }
        self._begun: Counter[str] = Counter()
        self._kind = ""
        self._total = 1.0
        self.percent = 0.0

    def stage(self, name: str, total: float) -> None:
        """A stage of `total` steps begins."""
        self._kind = name.split(" ", 1)[0]
        self._total = max(total, 1e-9)
        self._begun[self._kind] += 1
        self.advance(0.0)

    def advance(self, done: float) -> None:
        """`done` steps of it are finished. The bar never goes back."""
        if self._kind not in PARTS:
            return
        start, end = PARTS[self._kind]
        times = max(1, self._expected.get(self._kind, 1))
        share = min(1.0, (self._begun[self._kind] - 1 + min(1.0, done / self._total)) / times)
        self.percent = max(self.percent, start + (end - start) * share)

    def finish(self) -> None:
        """Nothing is left to do."""
        self.percent = 100.0
