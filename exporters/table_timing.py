"""Times the plans of a recorded table in settings that it lacks, or anew where a machine was busy.

Latency goes by shapes and not by values, so that the network need not be trained again, and one recording of
accuracies serves any target that comes later. Every setting is gone through several times, each time in
another order, with plain INT8 before every few plans; a plan's latency is the median over the passes of its
reading over that of plain INT8 around it. So neither a moment of other work nor a drift of the machine's
speed spoils a row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from device_bench.errors import RunError
from device_bench.protocol import Failure, FailureKind, TimingPolicy
from device_bench.sensors import device_info
from device_bench.storage import locked
from device_bench.sweep import SWEEP_TIMING, Sweep
from exporters.candidates import PROFILE_TIMING, ShapeBench, bench_request
from exporters.profile import unit_shares, units_of_layers
from pipeline.compressor import compress
from pipeline.data.cache import cache_folder
from pipeline.errors import ExportError
from pipeline.graph import ModelGraph
from pipeline.model import load_model
from pipeline.plan import CompressionPlan
from pipeline.tables.order import target_of
from pipeline.tables.task_table import SettingRecord, TaskTable
from pipeline.target import Target
from pipeline.target_bench import bench_for, insist

# A pass reads every plan once; the median of the passes counts.
PASSES = 3
# Between two readings of plain INT8.
PLANS_BETWEEN = 8
# Ranges to quantize with: any will do, since latency does not depend on values.
SAMPLES = 8

# Where a plan's INT8 files are, by format; a format that it cannot be exported to is absent.
Files = Mapping[str, Path]
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class FileTimer:
    """Times INT8 files on targets: on this machine in the processes of `sweep`, elsewhere by the agent."""

    sweep: Sweep
    timing: TimingPolicy = SWEEP_TIMING

    def p50_ms(self, files: Files, target: Target) -> float | Failure:
        """Median milliseconds of one inference, or why there is none."""
        if target.artifact_format not in files:
            return Failure(kind=FailureKind.UNSUPPORTED, message=f"no export to {target.artifact_format}")
        request = bench_request(files[target.artifact_format], target, self.timing)
        if target.where == "local":
            return self.sweep.p50_ms(request)
        outcome = insist(lambda: bench_for(target).measure(request))
        return outcome if isinstance(outcome, Failure) else outcome.latency.p50_ms

    def shares(self, files: Files, target: Target, graph: ModelGraph) -> dict[str, float]:
        """Unit → its share of the latency there; empty where the target cannot tell."""
        outcome = bench_for(target).profile(
            bench_request(files[target.artifact_format], target, PROFILE_TIMING)
        )
        return {} if isinstance(outcome, Failure) else unit_shares(outcome, units_of_layers(graph))


def written(
    writer: ShapeBench, folder: Path, formats: Sequence[str], module: nn.Module, plan: CompressionPlan
) -> Files:
    """INT8 files of a module by format, in `folder`; a format that it cannot be exported to is left out."""
    paths = {}
    for form in formats:
        path = folder / f"{plan.plan_id}.{form}"
        try:
            if not path.exists():
                writer.write(form, module, plan, path)
            paths[form] = path
        except ExportError:
            continue
    return paths


def retimed(table: TaskTable, settings: Sequence[str], folder: Path, progress: Progress) -> TaskTable:
    """The table with every plan timed in `settings`, whether it has latencies of them or not.

    Args:
        folder: files of the plans are written here, and taken from here where they are.

    Raises:
        BadInputError: a setting names no target, or the table's model cannot be built here.
        RunError: plain INT8 does not run in a setting.
    """
    targets = {name: target_of(name) for name in settings}
    formats = sorted({target.artifact_format for target in targets.values()})
    name = table.header.name
    module = load_model(table.header.model)
    noise = np.random.default_rng(table.header.seed)
    samples = noise.standard_normal((SAMPLES, *table.header.model.input_shape)).astype(np.float32)
    writer = ShapeBench(module, table.header.graph, tuple(targets.values()), samples, folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = written(writer, folder, formats, module, CompressionPlan())
    files = []
    for row, options in enumerate(table.options):
        progress(0.3 * row / len(table.options), f"{name}: {row} of {len(table.options)} plans exported")
        plan = table.codec.decode(options)
        files.append(written(writer, folder, formats, compress(module, table.header.graph, plan), plan))
    columns, records = dict(table.latency_ms), dict(table.header.settings)
    cache_folder().mkdir(parents=True, exist_ok=True)
    # Two recordings at once would measure each other.
    with ExitStack() as stack:
        stack.enter_context(locked(cache_folder() / "recording.lock"))
        timer = FileTimer(stack.enter_context(Sweep()))
        for place, (setting, target) in enumerate(targets.items()):

            def tell(share: float, done: int = place, setting: str = setting) -> None:
                progress(0.3 + 0.7 * (done + share) / len(targets), f"{name}: timed on {setting}")

            base, ratios = _timed(timer, target, whole, files, tell)
            shares = timer.shares(whole, target, table.header.graph)
            records[setting] = SettingRecord(target=target, base_latency_ms=base, shares=shares)
            columns[setting] = (base * ratios).astype(np.float32)
    info = device_info()
    device = f"{info.cpu_model}, {info.cpu_count} cores"
    header = table.header.model_copy(update={"settings": records, "device": device})
    return replace(table, header=header, latency_ms=columns)


def retime(path: Path, settings: Sequence[str], progress: Progress) -> TaskTable:
    """`retimed` for the table in a file, which is replaced once all settings are done."""
    table = TaskTable.load(path)
    with tempfile.TemporaryDirectory(prefix="edgeloop-") as work:
        table = retimed(table, settings, Path(work), progress)
    table.save(path)
    return table


def _timed(
    timer: FileTimer, target: Target, whole: Files, files: Sequence[Files], tell: Callable[[float], None]
) -> tuple[float, NDArray[np.float64]]:
    """Plain INT8's latency in ms, and each file's over it [n]; NaN for one that does not run.

    Raises:
        RunError: plain INT8 does not run.
    """
    rng = np.random.default_rng(0)
    found, bases = [], []
    for made in range(PASSES):
        order = rng.permutation(len(files))
        ratios = np.full(len(files), np.nan)
        before = _plain(timer, whole, target)
        for start in range(0, len(order), PLANS_BETWEEN):
            tell((made + start / len(order)) / PASSES)
            some = order[start : start + PLANS_BETWEEN]
            readings = [timer.p50_ms(files[row], target) for row in some]
            after = _plain(timer, whole, target)
            times = np.array([np.nan if isinstance(one, Failure) else one for one in readings])
            ratios[some] = times / np.linspace(before, after, len(some) + 2)[1:-1]
            bases += [before, after]
            before = after
        found.append(ratios)
    return float(np.median(bases)), np.median(np.stack(found), axis=0)


def _plain(timer: FileTimer, whole: Files, target: Target) -> float:
    reading = timer.p50_ms(whole, target)
    if isinstance(reading, Failure):
        raise RunError(f"plain INT8 does not run on {target.name}: {reading.message}")
    return reading
