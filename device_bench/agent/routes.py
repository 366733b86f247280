"""The routes of `device_bench.wire`, and who may use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ValidationError
from starlette.responses import Response, StreamingResponse

from device_bench.agent.artifacts import Upload
from device_bench.agent.refusals import Refused
from device_bench.wire import JOB, AgentInfo, Job, JobStatus, Refusal, Scope

if TYPE_CHECKING:
    from device_bench.agent.app import Agent

router = APIRouter(prefix="/v1")

# What FastAPI takes to describe answers.
Answers = dict[int | str, dict[str, Any]]

_CHUNK_BYTES = 1 << 20
_LONGEST_WAIT_SECONDS = 60

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content, hex.")]
Id = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="Chosen at random by the client.")]
Wait = Annotated[
    float,
    Query(
        ge=0,
        le=_LONGEST_WAIT_SECONDS,
        description="Seconds to wait for the end, at most two thirds of the agent's lease.",
    ),
]

_bearer = HTTPBearer(auto_error=False, description="A token of `device-bench token add`.")


def agent_of(request: Request) -> Agent:
    """The agent that the application was made for."""
    return request.app.state.agent  # type: ignore[no-any-return]


def allowed(scope: Scope) -> Callable[..., None]:
    """A dependency that lets nobody pass but the bearer of a valid token with this scope."""

    async def check(
        request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> None:
        token = None if bearer is None else agent_of(request).tokens.find(bearer.credentials)
        if token is None:
            raise Refused(
                401,
                "no_token",
                "this needs a valid bearer token; `device-bench token add` on the board makes one, and "
                "`device-bench token list` there tells which have expired",
            )
        if scope is Scope.MEASURE and token.scope is not Scope.MEASURE:
            raise Refused(
                403,
                "wrong_scope",
                f"the token {token.name!r} may read and not measure; "
                "`device-bench token add --scope measure` on the board makes one that may",
            )

    return check  # type: ignore[return-value]


class Health(BaseModel):
    """The agent answers."""

    status: str = "ok"


def _refusals(*statuses: int) -> Answers:
    """What every route may answer, and these."""
    words = {
        400: "The request ended before its body did.",
        401: "No valid token.",
        403: "The token's scope is too small.",
        404: "Not here.",
        409: "The id belongs to another job.",
        408: "The upload stalled.",
        413: "Too large.",
        415: "Another encoding or type than the one that is taken.",
        422: "Not what the schema says, or not the hash that the path says.",
        429: "The line is full.",
        500: "The agent made a mistake.",
        503: "Too many requests at once, the agent stops, or the board is in trouble.",
        507: "No room for the file.",
    }
    found: Answers = {}
    for status in sorted({*statuses, 500, 503}):
        found[status] = {"model": Refusal, "description": words[status]}
        if status in (429, 503):
            found[status]["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}
            }
    return found


_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_UPLOAD: dict[str, Any] = {"requestBody": {"required": True, "content": _BYTES}}
_JOB: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}},
    }
}
_STORED: Answers = {200: {"description": "It was here already."}}
_CONTENT: Answers = {200: {"content": _BYTES}}
_READ = [Depends(allowed(Scope.READ))]
_MEASURE = [Depends(allowed(Scope.MEASURE))]


@router.get("/health", responses=_refusals())
async def health() -> Health:
    """Whether the agent answers; needs no token and tells nothing else."""
    return Health()


@router.get("/info", dependencies=_READ, responses=_refusals(401))
async def info(request: Request) -> AgentInfo:
    """What the board is, and how it fares now."""
    agent = agent_of(request)
    return agent.board.info(agent.limits, agent.queue.waiting)


@router.head(
    "/artifacts/{sha256}",
    dependencies=_MEASURE,
    response_class=Response,
    responses=_refusals(401, 403, 404, 422),
)
async def has_artifact(request: Request, sha256: Sha256) -> Response:
    """Whether a file is here."""
    store = agent_of(request).store
    if store.path(sha256) is None:
        raise _no_artifact(sha256)
    return Response(headers={"content-length": str(store.size(sha256))})


@router.put(
    "/artifacts/{sha256}",
    dependencies=_MEASURE,
    response_class=Response,
    status_code=201,
    responses=_STORED | _refusals(400, 401, 403, 408, 413, 415, 422, 507),
    openapi_extra=_UPLOAD,
)
async def put_artifact(request: Request, sha256: Sha256) -> Response:
    """Upload a file under the hash of its content, as it is: no content encoding."""
    agent = agent_of(request)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Refused(415, "encoded", f"a file is taken as it is, without content encoding; got {encoding!r}")
    if agent.store.path(sha256) is not None:
        return Response(status_code=200)
    declared = request.headers.get("content-length")
    with agent.store.begin(sha256, None if declared is None else int(declared)) as upload:
        await _receive(request, upload, agent.limits.stall_seconds)
        upload.finish()
    return Response(status_code=201)


@router.get(
    "/artifacts/{sha256}",
    dependencies=_MEASURE,
    response_class=Response,
    responses=_CONTENT | _refusals(401, 403, 404, 422),
)
async def get_artifact(request: Request, sha256: Sha256) -> Response:
    """Download a file."""
    store = agent_of(request).store
    path = store.path(sha256)
    if path is None:
        raise _no_artifact(sha256)
    # Opened before anything is awaited: an eviction meanwhile takes the name and not the content.
    headers = {"content-length": str(store.size(sha256))}
    return StreamingResponse(_chunks(path.open("rb")), headers=headers, media_type="application/octet-stream")


@router.put(
    "/jobs/{job_id}",
    dependencies=_MEASURE,
    response_model=JobStatus,
    responses=_refusals(400, 401, 403, 404, 409, 413, 415, 422, 429),
    openapi_extra=_JOB,
)
async def put_job(request: Request, job_id: Id) -> Response:
    """Put a job in line; the same again is the same job. Its limits are cut down to the agent's."""
    job = await _job(request)
    return _json(agent_of(request).queue.submit(job_id, job))


@router.get(
    "/jobs/{job_id}",
    dependencies=_MEASURE,
    response_model=JobStatus,
    responses=_refusals(401, 403, 404, 422),
)
async def get_job(request: Request, job_id: Id, wait: Wait = 0) -> Response:
    """How a job stands; waits for its end. A job that nobody asks for is given up."""
    return _json(await agent_of(request).queue.wait(job_id, wait))


@router.delete(
    "/jobs/{job_id}",
    dependencies=_MEASURE,
    response_model=JobStatus,
    responses=_refusals(401, 403, 404, 422),
)
async def cancel_job(request: Request, job_id: Id) -> Response:
    """End a job. One that waits is done at once; one that runs is killed and done a moment later."""
    return _json(agent_of(request).queue.cancel(job_id))


async def _receive(request: Request, upload: Upload, stall_seconds: float) -> None:
    """Write a body as it comes, in pieces large enough for a memory card."""
    pending = bytearray()
    stream = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(stall_seconds):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            raise Refused(
                408, "stalled", f"nothing of the file came for {stall_seconds:g} s; send it again"
            ) from error
        if chunk:
            # Before it is kept: a body without a declared length ends at the limit, not at its end.
            upload.reserve(len(pending) + len(chunk))
            pending += chunk
        if pending and (chunk is None or len(pending) >= _CHUNK_BYTES):
            await asyncio.to_thread(upload.write, bytes(pending))
            pending.clear()
        if chunk is None:
            return


async def _job(request: Request) -> Job:
    """The body, read after the token was checked, and no further than the guard lets it."""
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(415, "not_json", f"a job is application/json; got {media_type!r}")
    try:
        return JOB.validate_json(await request.body())
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        text = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in problems)
        raise Refused(422, "invalid", f"this is no job: {text}") from error


def _json(status: JobStatus) -> Response:
    # Written by pydantic: FastAPI's own encoder takes long over the samples of a small model.
    return Response(status.model_dump_json(), media_type="application/json")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _no_artifact(sha256: str) -> Refused:
    return Refused(404, "no_artifact", f"there is no file {sha256} here; upload it first")
