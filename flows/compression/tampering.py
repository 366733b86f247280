"""Original and result on test samples that were tampered with: what `--robustness` adds to a run."""

from __future__ import annotations

from torch import nn

from device_bench.errors import BadInputError
from exporters.base import Artifact
from flows.compression.bookkeeping import Session
from pipeline.data.base import Dataset, Metric, Split
from pipeline.progress import reporter
from pipeline.robustness import EPSILONS, SEVERITIES, Attacker, Scale, corrupted, corruptions_for
from pipeline.robustness_row import RobustnessRow
from pipeline.target import Target

# Attacks need a gradient for every step, so a share of the test split has to do.
SAMPLES = 1000


def check_robustness(dataset: Dataset) -> None:
    """Nothing, if attacks are defined for the task.

    Raises:
        BadInputError: it does not classify.
    """
    if dataset.metric is not Metric.ACCURACY:
        raise BadInputError(
            f"--robustness is for classification; {dataset.name} is judged by {dataset.metric}: leave it out"
        )


def tampered_rows(
    session: Session, artifact: Artifact, module: nn.Module, target: Target, test: Split
) -> tuple[RobustnessRow, ...]:
    """The metric of the float original and of the chosen file under every attack and corruption.

    Each is attacked by what knows it best: the original by its own gradients, the file by those of the float
    module that it was exported from.

    Args:
        module: what the file was exported from.
    """
    bench, split = session.workbench, test.spread(SAMPLES)
    form = bench.dataset.preprocessing
    scale = Scale.of(split.x, form)
    known, victim = (
        Attacker(each, form, scale, session.job.seed, bench.dataset.heads)
        for each in (bench.module, module.eval())
    )
    watch = reporter()
    rows = [_row(session, artifact, target, ("clean", 0.0), (split, split))]
    for epsilon in EPSILONS:
        watch.advance(0, f"attacks of {epsilon:.4f}")
        pair = known.fgsm(split, epsilon), victim.fgsm(split, epsilon)
        rows.append(_row(session, artifact, target, ("fgsm", epsilon), pair))
        pair = known.pgd(split, epsilon), victim.pgd(split, epsilon)
        rows.append(_row(session, artifact, target, ("pgd", epsilon), pair))
    for kind in corruptions_for(split.x):
        watch.advance(0, f"corruption: {kind}")
        for severity in SEVERITIES:
            made = corrupted(split, kind, severity, scale, session.job.seed)
            rows.append(_row(session, artifact, target, (kind, float(severity)), (made, made)))
    return tuple(rows)


def _row(
    session: Session, artifact: Artifact, target: Target, told: tuple[str, float], splits: tuple[Split, Split]
) -> RobustnessRow:
    bench = session.workbench
    return RobustnessRow(
        kind=told[0],
        strength=told[1],
        original=bench.judge(bench.module, splits[0]),
        result=session.prover.metric(artifact, target, splits[1]),
    )
