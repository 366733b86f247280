"""Jobs on disk, one file each, so that none is forgotten when the agent is restarted or loses power."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from device_bench.errors import RunError
from device_bench.protocol import Failure, FailureKind, Record
from device_bench.storage import write_private
from device_bench.wire import Digest, Job, JobId, JobState, JobStatus, Outcome

_ID: TypeAdapter[str] = TypeAdapter(JobId)

RESTARTED = Failure(
    kind=FailureKind.AGENT_RESTARTED,
    message="the agent was restarted before this job was done; ask again under a new id",
)


class Entry(Record):
    """What is kept of a job. `number`: its place in the order of arrival. `digest`: of what was asked."""

    id: JobId
    number: int = Field(ge=0)
    digest: Digest | None
    outcome: Outcome | None = None

    def status(self) -> JobStatus:
        """As a client sees it once it is done."""
        return JobStatus(id=self.id, state=JobState.DONE, outcome=self.outcome)


def digest_of(job: Job) -> str:
    """Tells one request from another under the same id."""
    return hashlib.sha256(job.model_dump_json().encode()).hexdigest()


class Ledger:
    """The jobs of one folder. Outcomes stay on disk; beyond the limits the oldest are forgotten.

    Args:
        folder: theirs alone; made where it is missing.
        kept: how many finished jobs are kept.
        kept_bytes: what their files may take.
    """

    def __init__(self, folder: Path, kept: int, kept_bytes: int) -> None:
        self._folder = folder
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._digests: dict[str, str | None] = {}
        self._done: OrderedDict[str, int] = OrderedDict()  # id → bytes of its file, oldest first
        self._unwritten: dict[str, JobStatus] = {}
        self._next_number = 0

    def open(self) -> int:
        """Read what an earlier agent left; every job that it did not finish has failed by its restart.

        Returns:
            How many these were.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found: list[tuple[int, str]] = []
        for path in self._folder.iterdir():
            if path.suffix == ".json" and _is_id(path.stem):
                found.append((_read(path).number, path.stem))
            elif path.suffix == ".part":
                path.unlink()
        lost = 0
        for number, job_id in sorted(found):
            # Read again rather than held: all outcomes together may be larger than an agent should be.
            entry = _read(self._path(job_id))
            self._digests[job_id] = entry.digest
            self._next_number = max(self._next_number, number + 1)
            if entry.outcome is None:
                lost += 1
                self._write(entry.model_copy(update={"outcome": RESTARTED}))
            else:
                self._done[job_id] = self._path(job_id).stat().st_size
        self._forget()
        return lost

    def digest(self, job_id: str) -> str | None:
        """What was asked under this id; None if the id is unknown or its file was damaged."""
        return self._digests.get(job_id)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._digests

    def begin(self, job_id: str, digest: str) -> Entry:
        """Write a new job down.

        Raises:
            RunError: the disk is full.
        """
        entry = Entry(id=job_id, number=self._next_number, digest=digest)
        self._next_number += 1
        write_private(self._path(job_id), entry.model_dump_json().encode(), durable=False)
        self._digests[job_id] = digest
        return entry

    def finish(self, entry: Entry, outcome: Outcome) -> JobStatus:
        """Write a job's outcome down; where the disk has no room for it, the outcome is that failure."""
        done = entry.model_copy(update={"outcome": outcome})
        try:
            self._write(done)
        except RunError as error:
            failure = Failure(kind=FailureKind.RUNTIME_ERROR, message=f"the outcome was lost: {error}")
            done = entry.model_copy(update={"outcome": failure})
            self._unwritten[entry.id] = done.status()
            self._done[entry.id] = 0
        self._forget()
        return done.status()

    def outcome(self, job_id: str) -> JobStatus | None:
        """A finished job as its client sees it; None if it is unknown or not finished."""
        if job_id not in self._done:
            return None
        return self._unwritten.get(job_id) or _read(self._path(job_id)).status()

    def _write(self, entry: Entry) -> None:
        content = entry.model_dump_json().encode()
        write_private(self._path(entry.id), content, durable=False)
        self._done[entry.id] = len(content)

    def _forget(self) -> None:
        while len(self._done) > 1 and (
            len(self._done) > self._kept or sum(self._done.values()) > self._kept_bytes
        ):
            job_id, _ = self._done.popitem(last=False)
            del self._digests[job_id]
            self._unwritten.pop(job_id, None)
            self._path(job_id).unlink(missing_ok=True)

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"


def _is_id(text: str) -> bool:
    try:
        _ID.validate_python(text)
    except ValidationError:
        return False
    return True


def _read(path: Path) -> Entry:
    """A job's file. One that a loss of power cut off is a job that the restart ended."""
    try:
        return Entry.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Entry(id=path.stem, number=0, digest=None, outcome=RESTARTED)
