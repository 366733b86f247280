"""A bench far away: an agent on a board, asked over HTTPS."""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from device_bench.connection import AgentAddress, Connection, FileBody, JsonBody, Means, Patience
from device_bench.errors import RefusedError, RunError, UnreachableError
from device_bench.local import check_file, check_samples, store_samples
from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Failure,
    FailureKind,
    Measurement,
    Profile,
    Record,
    Rounds,
)
from device_bench.wire import (
    AgentInfo,
    CompareJob,
    Job,
    JobState,
    JobStatus,
    MeasureJob,
    Outcome,
    Predicted,
    PredictJob,
    ProfileJob,
    RemoteRequest,
)

# A cache that cannot hold a job's files for as long as it takes to ask for the job will not on the next try.
_UPLOAD_ROUNDS = 4
# Agents name a job's files by the first digits of their hashes.
_SHORTEST_NAME = 12
# The first question for a job comes back soon, to tell whether it runs.
_FIRST_POLL_SECONDS = 1.0
_ROUND_TRIPS = 3
_OTHER_VERSION = "another version of edgeloop runs there; update the older one"

Answer = TypeVar("Answer", bound=Record)


class Reach(NamedTuple):
    """An agent's answer, how long it took, and by how much its clock is ahead of ours."""

    info: AgentInfo
    round_trip_seconds: float
    clock_offset_seconds: float


@dataclass(frozen=True)
class AgentBench:
    """Implements `device_bench.bench.Bench`.

    Files are uploaded once; a job is asked for under an id that is made here, so that however often a
    connection breaks it runs once. Ctrl-C takes the job back. An agent that stays away is a
    `Failure(unreachable)`; one that refuses raises `RefusedError`; another one in its place raises
    `UntrustedAgentError`.

    Args:
        address: the agent, and what it and we are known by.
        patience: how long to go on trying.
        means: who hears of waiting, and the clock.
    """

    address: AgentAddress
    patience: Patience = field(default_factory=Patience)
    means: Means = field(default_factory=Means)

    def reach(self) -> Reach:
        """Ask the agent what it is and how its board fares.

        The round trip is the shortest of a few. The agent read its clock half of it before its answer came,
        so the clock's offset is right within half a round trip.

        Raises:
            UnreachableError, RefusedError, UntrustedAgentError: as their names say.
        """
        with self._connect() as connection:
            connection.send("GET", "/v1/health")  # the handshake is no part of a round trip
            seconds = min(self._round_trip(connection) for _ in range(_ROUND_TRIPS))
            response = connection.send("GET", "/v1/info")
            answered_ns = time.time_ns()
        info = _read(AgentInfo, response)
        return Reach(info, seconds, (info.clock_unix_ns - answered_ns) / 1e9 + seconds / 2)

    def measure(self, request: BenchRequest) -> Measurement | Failure:
        """Latency and memory of one file, in a fresh process on the board.

        Raises:
            BadInputError: there is no such file, or the agent refuses.
        """
        files = _Files.of(request)
        return self._expect(Measurement, files, MeasureJob(request=files.remote(request)))

    def compare(
        self, first: BenchRequest, second: BenchRequest, rounds: Rounds = Rounds()
    ) -> Comparison | Failure:
        """How many times faster the second file is, by interleaved rounds on the board.

        Raises:
            BadInputError: there is no such file, or the agent refuses.
        """
        files = _Files.of(first, second)
        job = CompareJob(first=files.remote(first), second=files.remote(second), rounds=rounds)
        return self._expect(Comparison, files, job)

    def profile(self, request: BenchRequest) -> Profile | Failure:
        """Where the latency of one file goes on the board, operator by operator.

        Raises:
            BadInputError: there is no such file, or the agent refuses.
        """
        files = _Files.of(request)
        return self._expect(Profile, files, ProfileJob(request=files.remote(request)))

    def predict(self, request: BenchRequest, inputs: NDArray[np.float32]) -> NDArray[np.float32] | Failure:
        """Outputs, float32 [n, ...], for samples, float32 [n, ...] in the file's own layout.

        Raises:
            BadInputError: there is no such file, `inputs` are not what is described, or the agent refuses.
        """
        check_samples(inputs)
        files = _Files.of(request)
        with tempfile.TemporaryDirectory(prefix="device-bench-") as folder:
            inputs_path = Path(folder) / "inputs.npy"
            store_samples(inputs, inputs_path)
            inputs_sha256 = files.add(inputs_path)
            job = PredictJob(request=files.remote(request), inputs_sha256=inputs_sha256)
            for _ in range(_UPLOAD_ROUNDS):
                predicted = self._expect(Predicted, files, job)
                if isinstance(predicted, Failure):
                    return predicted
                outputs_path = Path(folder) / "outputs.npy"
                if self._download(predicted.outputs_sha256, outputs_path):
                    outputs: NDArray[np.float32] = np.load(outputs_path, allow_pickle=False)
                    return outputs
        message = f"{self.address.url} makes room for other files faster than outputs can be fetched from it"
        return Failure(kind=FailureKind.RUNTIME_ERROR, message=message)

    def _round_trip(self, connection: Connection) -> float:
        started = self.means.clock()
        connection.send("GET", "/v1/health")
        return self.means.clock() - started

    def _connect(self) -> Connection:
        return Connection(self.address, self.patience, self.means)

    def _expect(self, kind: type[Answer], files: _Files, job: Job) -> Answer | Failure:
        """The outcome of a job, its files named as they are named here."""
        try:
            with self._connect() as connection:
                outcome = self._carry_out(connection, files, job)
        except UnreachableError as error:
            return Failure(kind=FailureKind.UNREACHABLE, message=str(error))
        if isinstance(outcome, Failure):
            return outcome.model_copy(update={"message": files.in_words(outcome.message)})
        if not isinstance(outcome, kind):
            raise RunError(
                f"{self.address.url} answers a {job.kind} job by a {type(outcome).__name__}: {_OTHER_VERSION}"
            )
        warnings: Sequence[str] = getattr(outcome, "warnings", ())
        if warnings:
            return outcome.model_copy(update={"warnings": tuple(map(files.in_words, warnings))})
        return outcome

    def _carry_out(self, connection: Connection, files: _Files, job: Job) -> Outcome:
        path = f"/v1/jobs/{secrets.token_hex(16)}"
        try:
            return self._follow(connection, path, self._submit(connection, path, files, job))
        except (UnreachableError, RefusedError):
            raise
        except BaseException:
            # Ctrl-C may have cut a request in half, so its connection is of no more use.
            with self._connect() as other:
                other.try_once("DELETE", path)
            raise

    def _submit(self, connection: Connection, path: str, files: _Files, job: Job) -> JobStatus:
        """Put the job in line, with its files; what was evicted meanwhile is uploaded again."""
        for attempt in range(1, _UPLOAD_ROUNDS + 1):
            for sha256 in files.paths:
                self._upload(connection, sha256, files)
            allowed = (404,) if attempt < _UPLOAD_ROUNDS else ()
            response = connection.send("PUT", path, JsonBody(job), allowed=allowed)
            if response.is_success:
                break
        return _read(JobStatus, response)

    def _upload(self, connection: Connection, sha256: str, files: _Files) -> None:
        place = f"/v1/artifacts/{sha256}"
        if connection.send("HEAD", place, allowed=(404,)).is_success:
            return
        path, size = files.paths[sha256], files.sizes[sha256]
        self.means.tell(f"uploading {path.name}, {size / 2**20:.2f} MiB")
        connection.send("PUT", place, FileBody(path, size))

    def _follow(self, connection: Connection, path: str, status: JobStatus) -> Outcome:
        seconds = min(_FIRST_POLL_SECONDS, self.patience.poll_seconds)
        while status.state is not JobState.DONE or status.outcome is None:
            self.means.tell(_in_words(status))
            response = connection.send("GET", f"{path}?wait={seconds:g}", seconds=seconds, allowed=(404,))
            if response.status_code == 404:
                message = (
                    f"{self.address.url} does not know the job any more: its folder was emptied; ask again"
                )
                return Failure(kind=FailureKind.AGENT_RESTARTED, message=message)
            status, seconds = _read(JobStatus, response), self.patience.poll_seconds
        return status.outcome

    def _download(self, sha256: str, path: Path) -> bool:
        """True if the file was there."""
        with self._connect() as connection, path.open("wb+") as file:
            response = connection.download(f"/v1/artifacts/{sha256}", file, allowed=(404,))
            if not response.is_success:
                return False
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise RunError(f"what came from {self.address.url} as {sha256} has the hash {found}; try again")
        return True


class _Files:
    """The files of a job by hash."""

    def __init__(self) -> None:
        self.paths: dict[str, Path] = {}
        self.sizes: dict[str, int] = {}
        self._given: dict[str, str] = {}

    @classmethod
    def of(cls, *requests: BenchRequest) -> _Files:
        """The files of these requests.

        Raises:
            BadInputError: there is no such file.
        """
        files = cls()
        for request in requests:
            check_file(request)
            files._given[request.path] = files.add(Path(request.path))
        return files

    def add(self, path: Path) -> str:
        """Take in one more file; returns its hash."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.sizes[sha256] = file.tell()
        self.paths.setdefault(sha256, path)
        return sha256

    def remote(self, request: BenchRequest) -> RemoteRequest:
        """The request in an agent's terms."""
        return RemoteRequest(**request.model_dump(exclude={"path"}), sha256=self._given[request.path])

    def in_words(self, text: str) -> str:
        """An agent's words with our names for the files."""
        for sha256, path in self.paths.items():
            # With or without the folder that it had on the board.
            short = rf"(\S*/)?\b{sha256[:_SHORTEST_NAME]}[0-9a-f]*(\.\w+)?"
            text = re.sub(short, str(path).replace("\\", r"\\"), text)
        return text


def _read(kind: type[Answer], response: httpx.Response) -> Answer:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise RunError(
            f"{response.request.url.host} answers what cannot be read ({error.errors()[0]['msg']!r}): "
            f"{_OTHER_VERSION}"
        ) from error


def _in_words(status: JobStatus) -> str:
    if status.state is JobState.RUNNING:
        return "running on the board"
    return "next in line" if not status.place else f"in line, {status.place} before it"
