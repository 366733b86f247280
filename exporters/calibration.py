"""Calibrates a target: writes nets, has them measured there, and keeps what they took."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from device_bench.bench import Bench
from device_bench.errors import BadInputError, RunError
from device_bench.protocol import BenchRequest, Failure, Measurement, TimingPolicy
from exporters.calibration_check import CHECKED, write_checks
from exporters.calibration_net import NetBuilder
from exporters.calibration_nets import kind_of, net_numbers, write_net
from exporters.calibration_onnx_net import OnnxNetBuilder
from exporters.calibration_onnx_reader import read_onnx
from exporters.calibration_tflite_net import TfliteNetBuilder
from exporters.calibration_tflite_reader import read_tflite
from pipeline.latency_model.accuracy import errors_of
from pipeline.latency_model.model import LatencyModel, cross_validated, spread_of
from pipeline.latency_model.operators import Operator
from pipeline.latency_model.records import CalibrationHeader, Errors, MeasuredNet, Summary
from pipeline.latency_model.store import CalibrationFile, mismatch
from pipeline.target import Target

# Thousands of nets are worth more than a fine figure for each: the median of a tenth of a second is within
# 1 % of that of a long run.
NET_TIMING = TimingPolicy(warmup_seconds=0.05, min_seconds=0.12, min_samples=20, max_seconds=5.0)
CHECK_TIMING = TimingPolicy(warmup_seconds=0.15, min_seconds=0.4, min_samples=50, max_seconds=10.0)
# A target that fails this often in a row fails for a reason of its own.
MOST_FAILURES = 5
CHECK_SEED = 1

Tell = Callable[[str], None]
Clock = Callable[[], float]


def read_operators(path: Path) -> tuple[Operator, ...]:
    """The operators of an INT8 file as its runtime runs them, for `LatencyModel.predict`. Nothing is run.

    Raises:
        BadInputError: it is neither ONNX nor TFLite, or not to be read.
    """
    readers = {".onnx": read_onnx, ".tflite": read_tflite}
    if path.suffix not in readers:
        raise BadInputError(f"{path} must end in .onnx or .tflite; got {path.suffix!r}")
    return readers[path.suffix](path)


@dataclass(frozen=True)
class Calibrator:
    """Measures on one target.

    Args:
        target: what is calibrated; its format must be ONNX or TFLite.
        bench: who measures there.
        tell: hears of each net in words.
        clock: seconds, from anywhere.
    """

    target: Target
    bench: Bench
    tell: Tell
    clock: Clock = time.monotonic

    def open(self, path: Path, *, resume: bool) -> CalibrationFile:
        """Begin a calibration at `path`, or go on with the one there.

        Raises:
            BadInputError: the target takes no INT8 files; or the calibration to go on with was made on
                another machine or runtime.
            RunError: the target cannot measure.
        """
        if self.target.artifact_format not in ("onnx", "tflite"):
            raise BadInputError(
                f"target {self.target.name} runs .{self.target.artifact_format} files; only targets that run "
                ".onnx or .tflite can be calibrated"
            )
        with self._written(0) as net:
            outcome = self._measured(net, NET_TIMING)
        if isinstance(outcome, Failure):
            raise RunError(f"{self.target.name} cannot measure: {outcome.kind}: {outcome.message}")
        if resume and path.exists():
            found = CalibrationFile.read(path)
            differs = mismatch(found.header, outcome.conditions)
            if differs is not None:
                raise BadInputError(f"cannot go on with {path}: {differs} (without --resume)")
            return found
        conditions = outcome.conditions
        return CalibrationFile.create(
            path,
            CalibrationHeader(
                target=self.target.name,
                runtime=self.target.runtime,
                runtime_version=conditions.runtime_version,
                accelerator=conditions.accelerator,
                threads=conditions.threads,
                device=conditions.device,
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )

    def measure_nets(self, file: CalibrationFile, seconds: float) -> None:
        """Measure designed nets that `file` does not have yet, for that long; each is kept at once.

        Raises:
            RunError: the target fails again and again.
        """
        stop = self.clock() + seconds
        known = {net.name for net in file.of_role("train")}
        failures = 0
        for number in net_numbers():
            if self.clock() >= stop:
                return
            if f"net-{number}" in known:
                continue
            with self._written(number) as net:
                outcome = self._measured(net, NET_TIMING)
                failures = self._failures(outcome, failures, net.name)
                if isinstance(outcome, Measurement):
                    name, kind = f"net-{number}", kind_of(number).name
                    file.add(_record(name, kind, "train", outcome, read_operators(net)))
                    self.tell(f"{len(file.nets)} nets, the last {kind} of {outcome.latency.p50_ms:.3f} ms")

    def measure_checks(
        self,
        file: CalibrationFile,
        plans: int,
        seed: int = CHECK_SEED,
        names: Sequence[str] = tuple(CHECKED),
    ) -> None:
        """Measure `plans` compressed copies of each network of the zoo, from which nothing is learned.

        Raises:
            RunError: the target fails again and again, or a network cannot be exported.
        """
        known = {net.name for net in file.of_role("check")}
        failures = 0
        with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
            for check in write_checks(self.target.artifact_format, Path(folder), plans, seed, names):
                name = f"{check.name}-{seed}"
                if name in known:
                    continue
                outcome = self._fastest_of_two(check.path)
                failures = self._failures(outcome, failures, check.name)
                if isinstance(outcome, Measurement):
                    file.add(_record(name, check.family, "check", outcome, read_operators(check.path)))
                    self.tell(f"compressed {check.family}, {outcome.latency.p50_ms:.3f} ms")

    def _fastest_of_two(self, path: Path) -> Measurement | Failure:
        """The faster of two measurements: whatever else runs on the target only ever slows one down."""
        first, second = self._measured(path, CHECK_TIMING), self._measured(path, CHECK_TIMING)
        if isinstance(first, Failure) or isinstance(second, Failure):
            return first if isinstance(first, Failure) else second
        return min(first, second, key=lambda outcome: outcome.latency.p50_ms)

    def _measured(self, path: Path, timing: TimingPolicy) -> Measurement | Failure:
        return self.bench.measure(
            BenchRequest(
                path=str(path),
                runtime=self.target.runtime,
                accelerator=self.target.accelerator,
                threads=self.target.threads,
                timing=timing,
            )
        )

    def _failures(self, outcome: Measurement | Failure, before: int, name: str) -> int:
        """How many failures in a row there are now."""
        if isinstance(outcome, Measurement):
            return 0
        self.tell(f"{name} failed: {outcome.kind}: {outcome.message.partition(chr(10))[0]}")
        if before + 1 >= MOST_FAILURES:
            raise RunError(
                f"{self.target.name} failed {MOST_FAILURES} times in a row, last: {outcome.kind}: "
                f"{outcome.message}; what was measured is kept: go on with --resume"
            )
        return before + 1

    @contextmanager
    def _written(self, number: int) -> Iterator[Path]:
        """The file of a net, as long as it is needed."""
        form = self.target.artifact_format
        builder: NetBuilder = OnnxNetBuilder(number) if form == "onnx" else TfliteNetBuilder(number)
        with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
            path = Path(folder) / f"net-{number}.{form}"
            path.write_bytes(write_net(number, builder))
            yield path


def summarize(file: CalibrationFile) -> Summary:
    """Cross-validate the nets, judge by the checks, and keep what was found beside the calibration.

    Raises:
        BadInputError: there are too few nets.
    """
    nets, checks = file.of_role("train"), file.of_role("check")
    predicted = [float(value) for value in cross_validated(nets)]
    spread = spread_of(predicted, [net.ms for net in nets])
    model = LatencyModel.fit(nets, spread)
    summary = Summary(
        spread=spread,
        by_kind=errors_by_kind(nets, predicted),
        by_family=errors_by_kind(checks, [model.predict(net.operators).ms for net in checks]),
    )
    file.save_summary(summary)
    return summary


def errors_by_kind(nets: list[MeasuredNet], predicted: list[float]) -> dict[str, Errors]:
    """Errors of each kind of net, and of all of them as "all"; empty where there are no nets."""
    kinds = dict.fromkeys([*sorted({net.kind for net in nets}), *(["all"] if nets else [])])
    found = {}
    for kind in kinds:
        chosen = [at for at, net in enumerate(nets) if kind in (net.kind, "all")]
        found[kind] = errors_of([predicted[at] for at in chosen], [nets[at].ms for at in chosen])
    return found


def _record(
    name: str, kind: str, role: str, outcome: Measurement, operators: tuple[Operator, ...]
) -> MeasuredNet:
    return MeasuredNet.model_validate(
        {"name": name, "kind": kind, "role": role, "ms": outcome.latency.p50_ms, "operators": operators}
    )
