"""Whether a newly trained policy may replace the one that comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from device_bench.protocol import Record
from device_bench.storage import write_whole
from pipeline.policy.policy_file import SHIPPED_FOLDER, SUFFIX, load_policy_file
from pipeline.tables.comparison import SIGNIFICANT
from pipeline.tables.contest import Contest, Progress, TaskSource, play
from pipeline.tables.standings import Standings

# A policy is for few trials: it is judged on the mean of its hypervolume after these.
JUDGED_AFTER = (5, 10)
SEEDS = 5


class Decision(Record):
    """What was decided of one shipped file, and why in words. `p` is None where nothing was shipped yet."""

    shipped: str
    promoted: bool
    reason: str
    difference: float | None = None
    p: float | None = None


def shipped_beside(learner: str, shipped: Path = SHIPPED_FOLDER) -> tuple[Path, Path]:
    """The files that a policy of this learner may replace: its learner's, and the default policy's."""
    return shipped / f"{learner}{SUFFIX}", shipped / f"meta{SUFFIX}"


def contest_of(
    candidate: Path, sources: Sequence[TaskSource], folder: Path, shipped: Path = SHIPPED_FOLDER
) -> Contest:
    """A newly trained policy against the shipped ones that are there."""
    learner = load_policy_file(candidate).learner
    rivals = [path for path in shipped_beside(learner, shipped) if path.exists()]
    names = tuple(str(path) for path in (candidate, *rivals))
    return Contest(tuple(sources), names, SEEDS, max(JUDGED_AFTER), folder)


def judged(
    candidate: Path,
    sources: Sequence[TaskSource],
    folder: Path,
    progress: Progress,
    shipped: Path = SHIPPED_FOLDER,
) -> tuple[Standings, tuple[Decision, ...]]:
    """Play the held-out tasks and decide; nothing is replaced yet.

    Raises:
        BadInputError: the candidate or a shipped file is damaged or of another version; no table.
    """
    standings = play(contest_of(candidate, sources, folder, shipped), 1, progress)
    learner = load_policy_file(candidate).learner
    return standings, tuple(decide(standings, candidate, path) for path in shipped_beside(learner, shipped))


def decide(standings: Standings, candidate: Path, shipped: Path) -> Decision:
    """The candidate replaces `shipped` only if it is better with p below 0.05; see `comparison.compare`."""
    if str(shipped) not in standings.policies:
        return Decision(shipped=shipped.name, promoted=True, reason="none was shipped yet")
    verdict = standings.verdict(str(candidate), str(shipped), JUDGED_AFTER)
    after = " and ".join(map(str, JUDGED_AFTER))
    told = (
        f"its mean hypervolume after {after} trials differs by {verdict.difference:+.4f} on {verdict.tasks} "
        f"held-out tasks (p = {verdict.p:.3g}, {verdict.seeds} seeds)"
    )
    if verdict.better:
        reason = f"better: {told}"
    elif verdict.difference > 0:
        reason = f"not surely better: {told}; p must be below {SIGNIFICANT}"
    else:
        reason = f"not better: {told}"
    return Decision(
        shipped=shipped.name,
        promoted=verdict.better,
        reason=reason,
        difference=verdict.difference,
        p=verdict.p,
    )


def promote(candidate: Path, decisions: Sequence[Decision], shipped: Path = SHIPPED_FOLDER) -> None:
    """Put the candidate in the place of those it may replace; it stays where it is, too.

    Raises:
        RunError: the package's folder cannot be written.
    """
    content = candidate.read_bytes()
    for decision in decisions:
        if decision.promoted:
            write_whole(shipped / decision.shipped, content)
