"""Measures, compares and runs artifacts on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_bench.commands import (
    Baseline,
    Describe,
    Library,
    Measure,
    Open,
    Opened,
    Peak,
    Predict,
    Readings,
    Round,
    RoundSamples,
    TakeProfile,
    Written,
)
from device_bench.errors import BadInputError, RunError
from device_bench.isolation import Child
from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Failure,
    Limits,
    Measurement,
    Memory,
    Profile,
    Rounds,
    RuntimeName,
)
from device_bench.runtimes import MODULES
from device_bench.statistics import Ratio, drift_note, latency, outlier_note, ratio_of_rounds

# Peak memory of a process with each runtime and no model. It depends on the installation alone, so one
# reading serves as long as this process lives.
_BASELINES: dict[str, int] = {}

# Two starts of the same process differ by about this much (seen: 116 KiB with ONNX Runtime 1.31).
_BASELINE_NOISE_BYTES = 256 << 10
# A sample shorter than this many steps of the clock is too coarse.
_FEWEST_CLOCK_STEPS = 100


def measure(request: BenchRequest) -> Measurement | Failure:
    """Measure one artifact in a fresh process.

    Returns:
        Raw samples, what follows from them, memory and conditions; or a `Failure` in the runtime's words.

    Raises:
        BadInputError: there is no such file.
    """
    check_file(request)
    module = MODULES[request.runtime]
    baseline = _baseline_bytes(module)
    if isinstance(baseline, Failure):
        return baseline
    with Child(module, request.limits) as child:
        readings = child.ask(Measure(request=request), Readings)
    if isinstance(readings, Failure):
        return readings
    return _measurement(request, readings, baseline)


def compare(first: BenchRequest, second: BenchRequest, rounds: Rounds = Rounds()) -> Comparison | Failure:
    """Compare two artifacts by interleaved rounds, each in its own fresh process, one running at a time.

    Which of the two starts changes from round to round, so that neither always runs second.

    Returns:
        The speed-up of the second over the first with its interval; or the first `Failure` met.

    Raises:
        BadInputError: there is no such file.
    """
    requests = (first, second)
    for request in requests:
        check_file(request)
    taken: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
    opened: list[Opened] = []
    with (
        Child(MODULES[first.runtime], first.limits) as one,
        Child(MODULES[second.runtime], second.limits) as other,
    ):
        children = (one, other)
        for child, request in zip(children, requests, strict=True):
            ready = child.ask(Open(request=request), Opened)
            if isinstance(ready, Failure):
                return _naming(ready, request)
            opened.append(ready)
        for number in range(rounds.count):
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                samples = children[which].ask(Round(seconds=rounds.seconds), RoundSamples)
                if isinstance(samples, Failure):
                    return _naming(samples, requests[which])
                taken[which].append(samples.samples_ns)
    ratio = ratio_of_rounds(*taken, seed=first.seed)
    return Comparison(
        speedup=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        rounds=rounds.count,
        first=latency([ns for samples in taken[0] for ns in samples], first.seed),
        second=latency([ns for samples in taken[1] for ns in samples], second.seed),
        conditions=opened[0].conditions,
        warnings=_comparison_warnings(first, second, opened, ratio),
    )


def profile(request: BenchRequest) -> Profile | Failure:
    """Say where the latency of one artifact goes, operator by operator.

    See `device_bench.profiling` for how.

    Raises:
        BadInputError: there is no such file.
    """
    check_file(request)
    with Child(MODULES[request.runtime], request.limits) as child:
        return child.ask(TakeProfile(request=request), Profile)


def predict(request: BenchRequest, inputs: NDArray[np.float32]) -> NDArray[np.float32] | Failure:
    """Run an artifact over many samples in a fresh process.

    Args:
        request: which file, runtime and threads; its timing is not used.
        inputs: float32 [n, ...] in the artifact's own layout. Quantized inputs and outputs are converted by
            the scale and zero point that the file declares.

    Returns:
        float32 [n, ...], or a `Failure`.

    Raises:
        BadInputError: there is no such file, or `inputs` is not what is described above.
        RunError: the samples cannot be stored for the other process.
    """
    check_samples(inputs)
    with tempfile.TemporaryDirectory(prefix="device-bench-") as folder:
        inputs_path, outputs_path = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        store_samples(inputs, inputs_path)
        failure = predict_stored(request, inputs_path, outputs_path)
        if failure is not None:
            return failure
        outputs: NDArray[np.float32] = np.load(outputs_path, allow_pickle=False)
        return outputs


def predict_stored(request: BenchRequest, inputs_path: Path, outputs_path: Path) -> Failure | None:
    """Run an artifact over the samples of an .npy file and write its outputs to another; see `predict`.

    Nothing of either file is read by this process.

    Raises:
        BadInputError: there is no such artifact.
    """
    check_file(request)
    command = Predict(request=request, inputs_path=str(inputs_path), outputs_path=str(outputs_path))
    with Child(MODULES[request.runtime], request.limits) as child:
        written = child.ask(command, Written)
    return written if isinstance(written, Failure) else None


def describe(runtime: RuntimeName) -> Library | Failure:
    """Say which library a runtime is and what it can use here.

    Also reads what a process with it and no model holds, so that no measurement has to wait for that.
    """
    module = MODULES[runtime]
    with Child(module, Limits()) as child:
        peak = child.ask(Baseline(), Peak)
        if isinstance(peak, Failure):
            return peak
        _BASELINES.setdefault(module, peak.peak_bytes)
        return child.ask(Describe(), Library)


def check_samples(inputs: NDArray[np.float32]) -> None:
    """Make sure that `inputs` are float32 [n, ...] with n of at least 1.

    Raises:
        BadInputError: they are not.
    """
    if inputs.dtype != np.float32 or inputs.ndim < 2 or len(inputs) == 0:
        raise BadInputError(
            f"inputs must be float32 of shape [n, ...] with n of at least 1; got {inputs.dtype} "
            f"of shape {list(inputs.shape)}"
        )


def store_samples(inputs: NDArray[np.float32], path: Path) -> None:
    """Write samples to an .npy file.

    Raises:
        RunError: they cannot be written.
    """
    try:
        np.save(path, inputs, allow_pickle=False)
    except OSError as error:
        raise RunError(f"cannot store {inputs.nbytes} bytes of samples at {path}: {error}") from error


def check_file(request: BenchRequest) -> None:
    """Make sure that a request's file is there.

    Raises:
        BadInputError: it is not.
    """
    if not Path(request.path).is_file():
        raise BadInputError(f"there is no file {request.path!r}; give the path of an ONNX or TFLite file")


def _baseline_bytes(module: str) -> int | Failure:
    if module not in _BASELINES:
        with Child(module, Limits()) as child:
            peak = child.ask(Baseline(), Peak)
        if isinstance(peak, Failure):
            return peak
        _BASELINES[module] = peak.peak_bytes
    return _BASELINES[module]


def _measurement(request: BenchRequest, readings: Readings, baseline: int) -> Measurement:
    found = latency(readings.samples_ns, request.seed)
    drift = drift_note(readings.samples_ns)
    peak_bytes = max(0, readings.peak_bytes - baseline)
    warnings = [*readings.notes]
    warnings += [note for note in (drift, outlier_note(readings.samples_ns)) if note]
    if not readings.steady:
        warnings.append("the warm-up did not become stable")
    if found.samples < request.timing.min_samples:
        warnings.append(
            f"only {found.samples} of {request.timing.min_samples} samples fitted into "
            f"{request.timing.max_seconds:g} s"
        )
    resolution = readings.conditions.clock_resolution_ns
    if resolution is not None and found.p50_ms * 1e6 < _FEWEST_CLOCK_STEPS * resolution:
        warnings.append(f"a run takes less than {_FEWEST_CLOCK_STEPS} steps of the clock ({resolution:g} ns)")
    if peak_bytes < _BASELINE_NOISE_BYTES:
        warnings.append(f"peak memory is within the noise of a process without a model ({baseline} bytes)")
    return Measurement(
        samples_ns=readings.samples_ns,
        latency=found,
        memory=Memory(
            peak_bytes=peak_bytes,
            arena_bytes=readings.arena_bytes,
            file_bytes=Path(request.path).stat().st_size,
            device_bytes=readings.device_bytes,
        ),
        conditions=readings.conditions,
        energy=readings.energy,
        instructions=readings.instructions,
        inputs=readings.inputs,
        outputs=readings.outputs,
        settled=readings.steady and drift is None,
        warnings=tuple(warnings),
    )


def _naming(failure: Failure, request: BenchRequest) -> Failure:
    return failure.model_copy(update={"message": f"{request.path}: {failure.message}"})


def _comparison_warnings(
    first: BenchRequest, second: BenchRequest, opened: list[Opened], ratio: Ratio
) -> tuple[str, ...]:
    warnings = [
        f"{request.path}: the warm-up did not become stable"
        for request, ready in zip((first, second), opened, strict=True)
        if not ready.steady
    ]
    warnings += [
        f"{request.path}: {note}"
        for request, ready in zip((first, second), opened, strict=True)
        for note in ready.notes
    ]
    if ratio.of_means:
        warnings.append(
            "another process took turns with these runs: the ratio is that of mean times, which it delays "
            "alike; measure on a quieter machine for a sharper one"
        )
    if ratio.low <= 1 <= ratio.high:
        warnings.append("the interval holds 1: these rounds do not tell which of the two is faster")
    if (first.runtime, first.threads) != (second.runtime, second.threads):
        warnings.append(
            f"unlike conditions: {first.runtime.value} with {first.threads} thread(s) against "
            f"{second.runtime.value} with {second.threads}; the conditions stored are the first's"
        )
    return tuple(warnings)
