"""Records a table: real accuracy and real latency of some hundred plans of one model.

Accuracy is the metric on a part of the search split after batch-norm re-estimation. Latency is that of the
INT8 file in each setting, on this machine by a `Sweep`, on a board by its agent. While plans are judged each
file is timed once, which tells the chooser where the front is; at the end all are timed again in several
passes (`exporters.table_timing`), and those latencies are the table's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from device_bench.errors import RunError
from device_bench.protocol import Failure
from device_bench.sensors import device_info
from device_bench.storage import locked
from device_bench.sweep import Sweep
from exporters.candidates import ShapeBench
from exporters.table_timing import Files, FileTimer, retimed, written
from pipeline.data import load_dataset
from pipeline.data.cache import cache_folder
from pipeline.evaluation import chance_of
from pipeline.model import load_model
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, PolicyContext, Shape, shape_of
from pipeline.pretraining import trained_weights
from pipeline.search import Workbench, changes_to_probe, plan_of, with_effects
from pipeline.space import PlanSpace
from pipeline.tables.choice import PlanChooser
from pipeline.tables.order import TableOrder, target_of
from pipeline.tables.task_table import SettingRecord, TableHeader, TaskTable, effects_of
from pipeline.target import Target
from pipeline.task import Budget, ModelSpec, Task
from pipeline.tracing import trace
from pipeline.zoo import MODELS

SAMPLES = 800
REESTIMATION_SAMPLES = 250
# Between two measurements of plain INT8.
PLANS_BETWEEN = 8
# Rows are on the disk after every so many.
ROWS_A_SAVE = 24

Progress = Callable[[float, str], None]


def record(order: TableOrder, folder: Path, data_root: Path | None, progress: Progress) -> TaskTable:
    """The table of `order` in `folder`, recorded now as far as it is not there; a killed recording goes on.

    Raises:
        BadInputError: a name is not known, or a file there is no table.
        RunError: plain INT8 does not run in a setting.
    """
    path = folder / order.file_name
    if path.exists():
        return TaskTable.load(path)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    progress(0.0, f"{order.name}: loading")
    with tempfile.TemporaryDirectory(prefix="edgeloop-") as work, ExitStack() as stack:
        timer = FileTimer(stack.enter_context(Sweep()))
        recorder = _Recorder.of(order, data_root, Path(work), timer, progress)
        table = TaskTable.load(partial) if partial.exists() else recorder.empty()
        table = recorder.filled(table, lambda rows: rows.save(partial), progress)
        table.save(partial)
        # Those latencies were good enough to choose plans by; what policies learn from is timed in passes.
        table = retimed(table, order.settings, Path(work), progress)
    table.save(path)
    partial.unlink(missing_ok=True)
    return table


@dataclass
class _Recorder:
    """One model at work."""

    order: TableOrder
    bench: Workbench
    targets: Mapping[str, Target]
    writer: ShapeBench
    timer: FileTimer
    folder: Path
    spec: ModelSpec

    @classmethod
    def of(
        cls, order: TableOrder, data_root: Path | None, folder: Path, timer: FileTimer, progress: Progress
    ) -> _Recorder:
        dataset = load_dataset(order.data, data_root, order.seed)
        dataset = replace(dataset, search=dataset.search.spread(SAMPLES))
        spec = ModelSpec(
            source=order.model,
            weights=order.weights,
            input_shape=dataset.input_shape,
            outputs=dataset.outputs,
        )
        if spec.weights is None and order.model in MODELS:
            told = trained_weights(
                spec,
                dataset,
                order.seed,
                lambda share, text: progress(0.0, f"{order.name}: training, {text}"),
                order.training_samples,
            )
            spec = spec.model_copy(update={"weights": str(told)})
        module = load_model(spec)
        graph = trace(module, spec.input_shape)
        targets = {name: target_of(name) for name in order.settings}
        space = PlanSpace.of(graph, max(target.width_step for target in targets.values()))
        task = Task(model=spec, data=order.data, targets=tuple(targets.values()))
        writer = ShapeBench(module, graph, tuple(targets.values()), dataset.calibration(), folder)
        bench = Workbench(task, dataset, module, graph, space, writer, order.seed, REESTIMATION_SAMPLES)
        return cls(order, bench, targets, writer, timer, folder, spec)

    def empty(self) -> TaskTable:
        """A table without rows: the original judged, and plain INT8 measured in each setting."""
        bench = self.bench
        accuracy = bench.judge(bench.module, bench.dataset.search)
        whole = self._written(bench.module, CompressionPlan())
        settings = {}
        for name, target in self.targets.items():
            readings = [self.timer.p50_ms(whole, target) for _ in range(3)]
            failed = [found for found in readings if isinstance(found, Failure)]
            if failed:
                raise RunError(f"plain INT8 of {self.order.name} does not run on {name}: {failed[0].message}")
            base = float(np.median([found for found in readings if isinstance(found, float)]))
            shares = self.timer.shares(whole, target, bench.graph)
            settings[name] = SettingRecord(target=target, base_latency_ms=base, shares=shares)
        info = device_info()
        header = TableHeader(
            model=self.spec.model_copy(update={"weights": None}),
            family=MODELS[self.order.model].family if self.order.model in MODELS else self.order.model,
            data=self.order.data,
            metric=bench.dataset.metric,
            float_accuracy=accuracy,
            chance=chance_of(bench.dataset),
            samples=len(bench.dataset.search),
            graph=bench.graph,
            width_step=max(target.width_step for target in self.targets.values()),
            settings=settings,
            device=f"{info.cpu_model}, {info.cpu_count} cores",
            seed=self.order.seed,
            heads=bench.dataset.heads,
        )
        columns = {name: np.empty(0, np.float32) for name in settings}
        codec = TaskTable(header, np.empty((0, 0), np.int16), np.empty(0, np.float32), columns).codec
        return TaskTable(
            header,
            np.empty((0, len(codec.positions)), np.int16),
            np.empty(0, np.float32),
            columns,
            bench.probed_outputs({}),
        )

    def filled(self, table: TaskTable, keep: Callable[[TaskTable], None], progress: Progress) -> TaskTable:
        """The table with a row for every single change and then for every whole plan."""
        bench = self.bench
        probes = [plan_of(bench.space, change) for change in changes_to_probe(bench.graph, bench.space)]
        probes = list({shape_of(plan): plan for plan in probes}.values())
        total = len(probes) + self.order.plans
        told = f"{self.order.name}: {{}} of {total} plans"

        def tell(rows: int) -> None:
            progress(rows / total, told.format(rows))

        table = self._with_rows(table, probes[len(table.accuracy) :], keep, tell)
        chosen = PlanChooser(self._context(table)).choose(self.order.plans, self.order.seed)
        return self._with_rows(table, chosen[len(table.accuracy) - len(probes) :], keep, tell)

    def _context(self, table: TaskTable) -> PolicyContext:
        header = table.header
        context = PolicyContext(
            graph=header.graph,
            space=self.bench.space,
            budget=Budget(),
            targets=tuple(self.targets.values()),
            float_accuracy=header.float_accuracy,
            base_latency_ms={name: one.base_latency_ms for name, one in header.settings.items()},
            metric=header.metric,
        )
        return with_effects(context, effects_of(table, list(header.settings)))

    def _with_rows(
        self,
        table: TaskTable,
        plans: list[CompressionPlan],
        keep: Callable[[TaskTable], None],
        tell: Callable[[int], None],
    ) -> TaskTable:
        for start in range(0, len(plans), PLANS_BETWEEN):
            some = plans[start : start + PLANS_BETWEEN]
            table = self._with_batch(table, some)
            tell(len(table.accuracy))
            if start // PLANS_BETWEEN % (ROWS_A_SAVE // PLANS_BETWEEN) == 0:
                keep(table)
        return table

    def _with_batch(self, table: TaskTable, plans: list[CompressionPlan]) -> TaskTable:
        modules = [self.bench.build(plan) for plan in plans]
        answered = [self.bench.answered(module, self.bench.dataset.search) for module in modules]
        accuracy = [judged for judged, _ in answered]
        answers = {
            self._changes[shape_of(plan)]: kept
            for plan, (_, kept) in zip(plans, answered, strict=True)
            if shape_of(plan) in self._changes
        }
        files = [self._written(module, plan) for module, plan in zip(modules, plans, strict=True)]
        latency = self._timed(table, files)
        return TaskTable(
            table.header,
            np.concatenate([table.options, np.stack([table.codec.encode(plan) for plan in plans])]),
            np.concatenate([table.accuracy, np.array(accuracy, np.float32)]),
            {name: np.concatenate([table.latency_ms[name], latency[name]]) for name in self.targets},
            None if table.outputs is None else table.outputs.with_changes(answers),
        )

    @cached_property
    def _changes(self) -> dict[Shape, Change]:
        """Single changes by the shape of their plans."""
        space = self.bench.space
        return {shape_of(plan_of(space, one)): one for one in changes_to_probe(self.bench.graph, space)}

    def _written(self, module: nn.Module, plan: CompressionPlan) -> Files:
        formats = sorted({target.artifact_format for target in self.targets.values()})
        return written(self.writer, self.folder, formats, module, plan)

    def _timed(self, table: TaskTable, files: list[Files]) -> dict[str, np.ndarray]:
        """p50 in ms of each file in each setting, in proportion to plain INT8 before and after."""
        whole = self._written(self.bench.module, CompressionPlan())
        found = {}
        cache_folder().mkdir(parents=True, exist_ok=True)
        # Two recordings at once would measure each other.
        with locked(cache_folder() / "recording.lock"):
            for name, target in self.targets.items():
                readings = [self.timer.p50_ms(one, target) for one in [whole, *files, whole]]
                values = np.array([np.nan if isinstance(one, Failure) else one for one in readings])
                drift = np.nanmean(values[[0, -1]]) / table.header.settings[name].base_latency_ms
                found[name] = (values[1:-1] / drift).astype(np.float32)
        return found
