"""The child process: `python -m device_bench.worker FD`.

Reads a `Job` and commands from standard input, answers on the file descriptor FD, so that whatever a
library prints cannot be mistaken for an answer. Ends at the end of its input.
"""

from __future__ import annotations

import os
import signal
import sys
from array import array
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np

from device_bench import energy, gpu, sensors, stability, timing
from device_bench.commands import (
    COMMAND,
    Baseline,
    Command,
    Describe,
    Job,
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
from device_bench.confinement import apply_limits, bind_cores, leave_network
from device_bench.emulated.instructions import instructions_of, open_counter
from device_bench.errors import MissingExtraError
from device_bench.prediction import predict_file
from device_bench.profiling import break_down
from device_bench.protocol import (
    BenchRequest,
    Conditions,
    Energy,
    Failure,
    FailureKind,
    Profile,
    Record,
    TimingPolicy,
)
from device_bench.runtimes import import_runtime
from device_bench.runtimes.base import (
    LoadOptions,
    Model,
    RuntimeFailure,
    TimedModel,
    count_delegated,
    first_lines,
    is_want_of_memory,
    load_checked,
)
from device_bench.tensors import random_inputs

# The parent kills a child at its wall limit; a child whose parent died ends itself this much later.
_ORPHAN_GRACE_SECONDS = 5.0


# After so many runs a model has held all the memory that it will.
_RUNS_TO_PEAK = 2


class Worker:
    """Answers commands with one runtime. Holds the opened model between rounds.

    Args:
        job: the runtime and the limits that hold already.
        network_isolated: whether this process has no network; None if it was to keep it.
    """

    def __init__(self, job: Job, network_isolated: bool | None = None) -> None:
        self._job = job
        self._network_isolated = network_isolated
        self._runtime = import_runtime(job.module)
        self._opened: Model | None = None

    def serve(self, commands: Iterable[str], answers: TextIO) -> None:
        """Answer each line of `commands` with one line on `answers`."""
        for line in commands:
            # SIGALRM kills also a process that hangs inside a library, and needs no parent.
            signal.setitimer(signal.ITIMER_REAL, self._job.limits.wall_seconds + _ORPHAN_GRACE_SECONDS)
            answer = self.answer(COMMAND.validate_json(line))
            answers.write(answer.model_dump_json() + "\n")
            answers.flush()

    def answer(self, command: Command) -> Record:
        """Carry a command out; whatever goes wrong below is a `Failure`."""
        try:
            return self._carry_out(command)
        except RuntimeFailure as failure:
            return Failure(kind=failure.kind, message=str(failure))
        except MissingExtraError as error:
            return Failure(kind=FailureKind.RUNTIME_MISSING, message=str(error))
        except Exception as error:  # a library may raise anything; the loop outside must live
            if is_want_of_memory(error):
                return Failure(kind=FailureKind.OUT_OF_MEMORY, message=first_lines(error))
            message = f"{type(error).__name__}: {first_lines(error)}"
            return Failure(kind=FailureKind.RUNTIME_ERROR, message=message)

    def _carry_out(self, command: Command) -> Record:
        match command:
            case Baseline():
                self._runtime.version()
                return Peak(peak_bytes=sensors.peak_resident_bytes())
            case Describe():
                return Library(version=self._runtime.version(), accelerators=self._runtime.accelerators())
            case Measure(request=request):
                return self._measure(request)
            case Open(request=request):
                self._opened, notes = self._load(request)
                steady = timing.warm_up(self._opened.invoke, request.timing, timing.default_clock)
                return Opened(
                    steady=steady,
                    conditions=self._conditions(request, self._opened),
                    notes=(*notes, *self._opened.notes),
                )
            case Round(seconds=seconds):
                if self._opened is None:
                    return Failure(
                        kind=FailureKind.RUNTIME_ERROR, message="a round before a model was opened"
                    )
                samples = _sample_round(self._opened, seconds)
                return RoundSamples(samples_ns=tuple(samples))
            case Predict(request=request):
                model = self._open(request)
                written = predict_file(model, Path(command.inputs_path), Path(command.outputs_path))
                return Written(samples=written)
            case TakeProfile(request=request):
                return self._profile(request)

    def _measure(self, request: BenchRequest) -> Readings:
        model, notes = self._load(request)
        throttled = stability.throttle_count()
        # Some runtimes plan their memory anew after the first run. Read before anything is timed: samples are
        # ours, not the model's, and those of a model of microseconds are megabytes.
        for _ in range(_RUNS_TO_PEAK):
            model.invoke()
        peak_bytes = sensors.peak_resident_bytes()
        steady = timing.warm_up(model.invoke, request.timing, timing.default_clock)
        samples = _sample(model, request.timing)
        throttled = stability.throttle_count() - throttled
        counter = open_counter() if request.threads == 1 else None
        if throttled:
            notes.append(f"the processor was throttled for heat {throttled} time(s) meanwhile: cool it")
        return Readings(
            samples_ns=tuple(samples),
            steady=steady,
            peak_bytes=peak_bytes,
            arena_bytes=model.arena_bytes,
            device_bytes=None if _on_cpu(request) else gpu.process_bytes(),
            energy=_energy(model, request),
            instructions=None if counter is None else instructions_of(model.invoke, counter),
            conditions=self._conditions(request, model),
            inputs=model.inputs,
            outputs=model.outputs,
            notes=(*notes, *model.notes, *_strange_outputs(model)),
        )

    def _profile(self, request: BenchRequest) -> Profile:
        model, notes = self._load(request)
        found = break_down(model, request, timing.default_clock)
        return Profile(
            operators=found.operators,
            whole_ms=found.whole_ms,
            other_ms=found.other_ms,
            method=found.method,
            conditions=self._conditions(request, model),
            warnings=(*notes, *model.notes, *found.warnings()),
        )

    def _open(self, request: BenchRequest) -> Model:
        bind_cores(request.cores)
        options = LoadOptions(threads=request.threads, accelerator=request.accelerator)
        return load_checked(self._runtime, request.runtime.value, Path(request.path), options)

    def _load(self, request: BenchRequest) -> tuple[Model, list[str]]:
        """The model with inputs, and what speaks against measuring now."""
        bind_cores(request.cores)
        notes = list(stability.before_measuring(request.threads))
        model = self._open(request)
        model.set_inputs(random_inputs(model.inputs, request.seed))
        return model, notes

    def _conditions(self, request: BenchRequest, model: Model) -> Conditions:
        placements = model.placements
        operators = count_delegated(placements)
        return Conditions(
            device=sensors.device_info(),
            runtime=request.runtime,
            runtime_version=self._runtime.version(),
            accelerator=request.accelerator,
            threads=request.threads,
            affinity=sensors.affinity(),
            governor=sensors.governor(),
            frequency_mhz=sensors.frequency_mhz(),
            temperature_c=sensors.temperature_c(),
            load_1m=sensors.load_1m(),
            delegated_operators=None if operators is None else operators.delegated,
            undelegated_operators=None if operators is None else operators.undelegated,
            placements=placements,
            network_isolated=self._network_isolated,
            clock_resolution_ns=timing.clock_resolution_ns(timing.default_clock),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _strange_outputs(model: Model) -> list[str]:
    """What outputs that are no numbers mean; asked after the timing, as reading them takes memory."""
    found = []
    for info, output in zip(model.outputs, model.read_outputs(), strict=True):
        wrong = 0 if output.dtype.kind != "f" else int(np.sum(~np.isfinite(output)))
        if wrong:
            found.append(
                f"{wrong} of {output.size} values of output {info.name!r} are NaN or infinite: see that the "
                "file's weights are whole"
            )
    return found


def _on_cpu(request: BenchRequest) -> bool:
    return request.accelerator.startswith("cpu")


def _energy(model: Model, request: BenchRequest) -> Energy | None:
    """Of one inference, in a pass of its own as long as the sampling was meant to be."""
    clock = timing.default_clock
    meter = energy.find_meter(clock()) if _on_cpu(request) else gpu.NvmlMeter()
    if meter is None or meter.joules(clock()) is None:
        return None
    return energy.measure(model.invoke, meter, request.timing.min_seconds, clock)


def _sample(model: Model, policy: TimingPolicy) -> array[int]:
    if isinstance(model, TimedModel):
        return timing.sample_timed(model.timed_invoke, policy, timing.default_clock)
    return timing.sample(model.invoke, policy, timing.default_clock)


def _sample_round(model: Model, seconds: float) -> array[int]:
    if isinstance(model, TimedModel):
        return timing.sample_round_timed(model.timed_invoke, seconds, timing.default_clock)
    return timing.sample_round(model.invoke, seconds, timing.default_clock)


def main() -> None:
    """Run as a child: standard input and the file descriptor named by the only argument."""
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        job = Job.model_validate_json(sys.stdin.readline())
        # First, as a namespace can only be left by a process of one thread, and libraries start some.
        network_isolated = None if job.limits.network else leave_network()
        apply_limits(job.limits)
        Worker(job, network_isolated).serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
    # All answers are out. Without this the interpreter and the runtime would take themselves apart piece by
    # piece, and whoever waits for the measurement would wait for that too (seen: 50 ms of 250).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
