"""Carries a client's job out on this machine: hashes become files, limits are cut down, files put away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from device_bench.agent.artifacts import ArtifactStore, hash_of
from device_bench.agent.refusals import Refused
from device_bench.agent.settings import AgentLimits
from device_bench.errors import EdgeloopError
from device_bench.isolation import Stop, stopped_by
from device_bench.protocol import BenchRequest, Failure, FailureKind, Limits, TimingPolicy
from device_bench.runtimes import SUFFIXES
from device_bench.wire import (
    CompareJob,
    Job,
    MeasureJob,
    Outcome,
    Predicted,
    PredictJob,
    ProfileJob,
    RemoteRequest,
)

_ENDINGS = {runtime: suffix for suffix, runtime in SUFFIXES.items()}
_SHORT_HASH = 12


class LocalRunner:
    """Runs jobs on the files of a store.

    Args:
        store: the uploaded files.
        work: a folder on the store's file system for what a running job needs.
        limits: what a job may ask for at most.
    """

    def __init__(self, store: ArtifactStore, work: Path, limits: AgentLimits) -> None:
        self._store = store
        self._work = work
        self._limits = limits
        self._made: Path | None = None

    def open(self) -> None:
        """Clear away what an earlier agent's running job left."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True, mode=0o700)

    def hold(self, job: Job) -> None:
        """Pin a job's files.

        Raises:
            Refused: 404 one of them is not here.
        """
        needed = _files_of(job)
        for sha256 in needed:
            if self._store.path(sha256) is None:
                raise Refused(
                    404,
                    "no_artifact",
                    f"there is no file {sha256} here; upload it with PUT /v1/artifacts/{sha256}, "
                    "then ask again",
                )
        for sha256 in needed:
            self._store.pin(sha256)

    def release(self, job: Job) -> None:
        """Unpin a job's files."""
        for sha256 in _files_of(job):
            self._store.unpin(sha256)

    def run(self, job: Job, stop: Stop) -> Outcome:
        """Carry a job out; whatever goes wrong is a `Failure`."""
        with tempfile.TemporaryDirectory(dir=self._work) as name, stopped_by(stop):
            folder = Path(name)
            try:
                outcome = self._run(job, folder)
            except EdgeloopError as error:
                outcome = Failure(kind=FailureKind.BAD_INPUT, message=str(error))
        if isinstance(outcome, Failure):
            # A client knows its files by their hashes; where they lie on the board is not its business.
            message = outcome.message.replace(f"{folder}{os.sep}", "")
            outcome = outcome.model_copy(update={"message": message})
        return outcome

    def finish(self, outcome: Outcome) -> Outcome:
        """Take the outputs of a prediction into the store."""
        made, self._made = self._made, None
        if made is None:
            return outcome
        assert isinstance(outcome, Predicted)
        try:
            self._store.adopt(made, outcome.outputs_sha256)
            return outcome
        except Refused as refused:
            return Failure(kind=FailureKind.RUNTIME_ERROR, message=f"the outputs: {refused.message}")
        finally:
            made.unlink(missing_ok=True)

    def _run(self, job: Job, folder: Path) -> Outcome:
        # numpy comes with it, which an agent that only waits does not need.
        from device_bench import local

        match job:
            case MeasureJob(request=request):
                return local.measure(self._request(request, folder))
            case CompareJob(first=first, second=second, rounds=rounds):
                return local.compare(self._request(first, folder), self._request(second, folder), rounds)
            case ProfileJob(request=request):
                return local.profile(self._request(request, folder))
            case PredictJob(request=request, inputs_sha256=inputs):
                made = folder / "outputs.npy"
                inputs_path = self._link(inputs, folder / "inputs.npy")
                failure = local.predict_stored(self._request(request, folder), inputs_path, made)
                if failure is not None:
                    return failure
                self._made = made.replace(self._work / "outputs.npy")
                return Predicted(outputs_sha256=hash_of(self._made), size_bytes=self._made.stat().st_size)

    def _request(self, remote: RemoteRequest, folder: Path) -> BenchRequest:
        # Its own folder and ending: what else is in the store cannot be reached by a relative name.
        path = folder / f"{remote.sha256[:_SHORT_HASH]}{_ENDINGS[remote.runtime]}"
        self._link(remote.sha256, path)
        settings = remote.model_dump(exclude={"sha256", "limits", "timing"})
        return BenchRequest(
            **settings,
            path=str(path),
            limits=capped_limits(remote.limits, self._limits),
            timing=capped_timing(remote.timing, self._limits),
        )

    def _link(self, sha256: str, path: Path) -> Path:
        if not path.exists():
            self._store.link(sha256, path)
        return path


def capped_limits(asked: Limits, allowed: AgentLimits) -> Limits:
    """What was asked for, cut down to what is allowed; a job of a client never gets the network."""
    return asked.model_copy(
        update={
            "wall_seconds": min(asked.wall_seconds, allowed.wall_seconds),
            "cpu_seconds": min(asked.cpu_seconds, allowed.cpu_seconds),
            "file_bytes": min(asked.file_bytes, allowed.artifact_bytes),
            "address_space_bytes": min(
                (limit for limit in (asked.address_space_bytes, allowed.memory_bytes) if limit is not None),
                default=None,
            ),
            "network": False,
        }
    )


def capped_timing(asked: TimingPolicy, allowed: AgentLimits) -> TimingPolicy:
    """Warming up and sampling cannot last longer than the process may."""
    longest = allowed.wall_seconds
    return asked.model_copy(
        update={
            "warmup_seconds": min(asked.warmup_seconds, longest),
            "min_seconds": min(asked.min_seconds, longest),
            "max_seconds": min(asked.max_seconds, longest),
        }
    )


def _files_of(job: Job) -> Sequence[str]:
    match job:
        case CompareJob(first=first, second=second):
            return (first.sha256, second.sha256)
        case PredictJob(request=request, inputs_sha256=inputs):
            return (request.sha256, inputs)
        case MeasureJob(request=request) | ProfileJob(request=request):
            return (request.sha256,)
