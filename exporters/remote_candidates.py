"""Candidates made on other machines: built, judged and exported there, measured where their targets are.

What goes over the wire is a source, a plan and the finished files; each worker rebuilds the run's workbench
once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from device_bench.protocol import Failure, Measurement
from exporters.candidates import ShapeBench, shape_signature
from pipeline.data import load_dataset
from pipeline.errors import ExportError
from pipeline.model import load_model
from pipeline.plan import CompressionPlan
from pipeline.policy.outputs import Outputs
from pipeline.search import Workbench
from pipeline.space import PlanSpace
from pipeline.target import Target
from pipeline.task import Budget, ModelSpec, Task
from pipeline.tracing import trace

Judged = Literal["probe", "search"]


@dataclass(frozen=True)
class CandidateSource:
    """What a run's workbench is rebuilt from. Every path in it must lead to the same on every machine.

    Args:
        spec: the model, its weights among it.
        data: of `load_dataset`, with `data_root`.
        seed: of the run.
    """

    spec: ModelSpec
    data: str
    data_root: str | None
    seed: int
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Prepared:
    """A candidate that is all but measured.

    Args:
        accuracy: on the split that was asked for.
        answers: those kept of its outputs there, float32 [n, k].
        signature: of its shapes; see `shape_signature`.
        files: INT8 files by format.
        failed: why a format has none.
        seconds: by stage.
    """

    plan: CompressionPlan
    accuracy: float
    answers: Outputs = field(repr=False)
    signature: str
    files: dict[str, bytes] = field(repr=False)
    failed: dict[str, str]
    seconds: dict[str, float]


def prepare(source: CandidateSource, plan: CompressionPlan, judged: Judged) -> Prepared:
    """Build, judge and export one candidate, in whichever process this is."""
    bench, shapes = _workbench(source)
    clock = time.monotonic()
    module = bench.build(plan)
    built = time.monotonic()
    accuracy, answers = bench.answered(
        module, bench.probe_split if judged == "probe" else bench.dataset.search
    )
    decided = time.monotonic()
    files, failed = {}, {}
    with TemporaryDirectory() as folder:
        for form in sorted({target.artifact_format for target in source.targets}):
            path = Path(folder) / f"candidate.{form}"
            try:
                shapes.write(form, module, plan, path)
                files[form] = path.read_bytes()
            except ExportError as error:
                failed[form] = str(error)
    seconds = {"build": built - clock, "accuracy": decided - built, "export": time.monotonic() - decided}
    signature = shape_signature(module, bench.graph, plan)
    return Prepared(plan, accuracy, answers, signature, files, failed, seconds)


@lru_cache(maxsize=1)
def _workbench(source: CandidateSource) -> tuple[Workbench, ShapeBench]:
    """The run's workbench; kept, since a worker makes many candidates of a run."""
    dataset = load_dataset(source.data, Path(source.data_root) if source.data_root else None, source.seed)
    # A model of the user's own may draw its weights: every worker must get the same ones.
    torch.manual_seed(source.seed)
    module = load_model(source.spec)
    graph = trace(module, source.spec.input_shape)
    task = Task(model=source.spec, data=dataset.name, targets=source.targets, budget=Budget())
    shapes = ShapeBench(module, graph, source.targets, dataset.calibration(), Path())
    space = PlanSpace.of(graph, max(target.width_step for target in source.targets))
    return Workbench(task, dataset, module, graph, space, shapes, source.seed), shapes


def measured(shapes: ShapeBench, candidate: Prepared) -> Mapping[str, Measurement | Failure]:
    """Latency and memory of a candidate that came from elsewhere, on the targets of `shapes`.

    Raises:
        UnreachableError: no target is left whose board answers.
    """

    def write(form: str, path: Path) -> None:
        if form in candidate.failed:
            raise ExportError(candidate.failed[form])
        path.write_bytes(candidate.files[form])

    return shapes.measure_files(candidate.signature, write)
