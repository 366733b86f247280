"""What travels between an agent and its clients, as JSON over HTTPS under `/v1`.

    GET    /v1/health                    no token     {"status": "ok"}
    GET    /v1/info                      read         AgentInfo
    HEAD   /v1/artifacts/{sha256}        measure      200 or 404
    PUT    /v1/artifacts/{sha256}        measure      201, or 200 where it is there already
    GET    /v1/artifacts/{sha256}        measure      bytes (the outputs of a prediction)
    PUT    /v1/jobs/{id}                 measure      JobStatus; the same again is the same job
    GET    /v1/jobs/{id}?wait=SECONDS    measure      JobStatus; waits for the end; asking keeps the job alive
    DELETE /v1/jobs/{id}                 measure      JobStatus; a job that waits or runs ends as `cancelled`
    GET    /openapi.json                 no token

Whatever is refused is answered by a `Refusal`; 429 and 503 carry `Retry-After`.
"""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import (
    Comparison,
    DeviceInfo,
    Failure,
    Measurement,
    Profile,
    Record,
    Rounds,
    RunSettings,
    RuntimeName,
)

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Scope(StrEnum):
    """What a token allows. Measuring includes reading."""

    READ = "read"
    MEASURE = "measure"


class RemoteRequest(RunSettings):
    """One uploaded file to run."""

    sha256: Digest


class MeasureJob(Record):
    """Outcome: `Measurement`."""

    kind: Literal["measure"] = "measure"
    request: RemoteRequest


class CompareJob(Record):
    """Outcome: `Comparison`."""

    kind: Literal["compare"] = "compare"
    first: RemoteRequest
    second: RemoteRequest
    rounds: Rounds = Rounds()


class PredictJob(Record):
    """Outcome: `Predicted`. `inputs_sha256`: an uploaded .npy file, float32 [n, ...]."""

    kind: Literal["predict"] = "predict"
    request: RemoteRequest
    inputs_sha256: Digest


class ProfileJob(Record):
    """Outcome: `Profile`."""

    kind: Literal["profile"] = "profile"
    request: RemoteRequest


Job = Annotated[MeasureJob | CompareJob | PredictJob | ProfileJob, Field(discriminator="kind")]
JOB: TypeAdapter[MeasureJob | CompareJob | PredictJob | ProfileJob] = TypeAdapter(Job)


class Predicted(Record):
    """The outputs lie among the artifacts, an .npy file, float32 [n, ...]."""

    outputs_sha256: Digest
    size_bytes: int


Outcome = Measurement | Comparison | Predicted | Profile | Failure


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class JobStatus(Record):
    """`place`: how many jobs come before it, 0 for the next one; only while queued."""

    id: JobId
    state: JobState
    place: int | None = None
    outcome: Outcome | None = None


class RuntimeInfo(Record):
    """A runtime on the board. `version` is None where it is not installed; `note` says what to install."""

    runtime: RuntimeName
    version: str | None
    accelerators: tuple[str, ...] = ()
    note: str = ""


class AgentInfo(Record):
    """What an agent is and how its board fares now. `clock_unix_ns`: its clock when it answered."""

    agent_version: str
    device: DeviceInfo
    runtimes: tuple[RuntimeInfo, ...]
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    load_1m: float | None = None
    advice: tuple[str, ...] = ()
    clock_unix_ns: int
    queued: int
    queue_limit: int
    artifact_limit_bytes: int
    cache_limit_bytes: int


class Refusal(Record):
    """Why a request was not done: `code` for programs, `message` for people (what to do included)."""

    code: str
    message: str


class Pairing(Record):
    """What a client needs to trust an agent and to be trusted by it. Its line is a secret.

    `fingerprint`: SHA-256 of the certificate's DER form, hex.
    """

    fingerprint: Digest
    token: str = Field(min_length=16, max_length=256)

    def line(self) -> str:
        """One line to copy from the board to the laptop."""
        text = self.model_dump_json(exclude={"schema_version"})
        return _PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def from_line(cls, line: str) -> Pairing:
        """Read a pairing line.

        Raises:
            BadInputError: it is not one; a secret is never repeated in the message.
        """
        text = line.strip()
        try:
            if not text.startswith(_PREFIX):
                raise ValueError
            body = text.removeprefix(_PREFIX)
            return cls.model_validate_json(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, binascii.Error, ValidationError) as error:
            raise BadInputError(
                f"this is no pairing line: it must begin with {_PREFIX!r} and be copied whole "
                f"(got {len(text)} characters); `device-bench init` on the board prints it"
            ) from error


_PREFIX = "edgeloop-pair-1:"
