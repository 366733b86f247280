"""The agent's HTTP interface: the routes of `device_bench.wire`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from device_bench.agent.about import Board
from device_bench.agent.artifacts import ArtifactStore
from device_bench.agent.jobs import JobQueue
from device_bench.agent.memory import give_back_memory
from device_bench.agent.middleware import Guard
from device_bench.agent.refusals import Refused
from device_bench.agent.routes import router
from device_bench.agent.settings import AgentLimits
from device_bench.agent.tokens import Tokens
from device_bench.errors import EdgeloopError
from device_bench.wire import JOB

_LOG = logging.getLogger("device_bench.agent")
_REFERENCE = "#/components/schemas/{model}"
# What a client waits when the board itself is in trouble, a full disk for example.
_TROUBLE_RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class Agent:
    """What the routes work on."""

    limits: AgentLimits
    tokens: Tokens
    store: ArtifactStore
    queue: JobQueue
    board: Board


def create_app(agent: Agent) -> FastAPI:
    """The application; it carries jobs out from its start-up to its shutdown."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving = asyncio.create_task(agent.queue.serve(agent.board.chores(), give_back_memory))
        serving.add_done_callback(_end_with)
        try:
            yield
        finally:
            agent.queue.close()
            await agent.queue.idle()
            serving.remove_done_callback(_end_with)
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving

    app = FastAPI(
        title="edgeloop device bench",
        version="1",
        summary="Measures models on the machine it runs on, one at a time.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.agent = agent
    app.include_router(router)
    app.add_middleware(Guard, limits=agent.limits)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _cut_off)
    app.add_exception_handler(EdgeloopError, _trouble)
    app.add_exception_handler(Exception, _broken)
    _describe_jobs(app)
    return app


def _end_with(serving: asyncio.Task[None]) -> None:
    """An agent that takes jobs and never runs them would be worse than none."""
    if not serving.cancelled():
        _LOG.critical("the line of jobs broke; the agent ends", exc_info=serving.exception())
        signal.raise_signal(signal.SIGTERM)


def _describe_jobs(app: FastAPI) -> None:
    """Add the types of a job to the OpenAPI document: its body is read by hand, after the token."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            known = document["components"]["schemas"]
            schema = JOB.json_schema(ref_template=_REFERENCE)
            for name, definition in schema.pop("$defs").items():
                known.setdefault(name, definition)
            known["Job"] = schema
            # It has a default in Python alone: without it nobody could tell what kind of job is meant.
            for reference in schema["discriminator"]["mapping"].values():
                known[reference.rpartition("/")[2]].setdefault("required", []).append("kind")
            # FastAPI adds its own form of a 422 to every route; ours is a Refusal.
            known.pop("HTTPValidationError", None)
            known.pop("ValidationError", None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    text = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
    return Refused(422, "invalid", text).response()


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "no_route", 405: "no_method"}.get(error.status_code, "refused")
    response = Refused(error.status_code, code, f"{error.detail}; /openapi.json lists the routes").response()
    response.headers.update(error.headers or {})
    return response


async def _cut_off(_: Request, error: Exception) -> Response:
    return Refused(400, "cut_off", "the request ended before its body did").response()


async def _trouble(_: Request, error: Exception) -> Response:
    _LOG.error("the board is in trouble: %s", error)
    message = "the board is in trouble; its agent's log says how"
    return Refused(503, "trouble", message, _TROUBLE_RETRY_SECONDS).response()


async def _broken(_: Request, error: Exception) -> Response:
    return Refused(500, "broken", "the agent made a mistake; its log tells more").response()
