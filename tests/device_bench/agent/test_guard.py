"""What surrounds a request: ids, the log, and limits; in one process, without a network."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from device_bench.agent.app import create_app
from device_bench.agent.middleware import Guard
from device_bench.agent.serve import build_agent
from device_bench.agent.settings import AgentLimits, StateFolder
from device_bench.wire import Refusal
from device_bench.wire import Scope as TokenScope


class Slow:
    """An application that answers once it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.here = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.here += 1
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def client_of(app: object, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="https://board", headers=headers)


def test_too_many_at_once_are_told_to_come_back() -> None:
    async def act() -> None:
        slow = Slow()
        async with client_of(Guard(slow, AgentLimits(open_requests=2))) as client:
            patient = [asyncio.create_task(client.get("/v1/health")) for _ in range(2)]
            while slow.here < 2:
                await asyncio.sleep(0)
            answer = await client.get("/v1/health")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert Refusal.model_validate_json(answer.content).code == "crowded"
            slow.go.set()
            assert [(await task).status_code for task in patient] == [200, 200]
            assert (await client.get("/v1/health")).status_code == 200

    asyncio.run(act())


def test_logs_name_requests_and_no_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def act() -> None:
        agent = build_agent(StateFolder(tmp_path), AgentLimits())
        token = agent.tokens.add("laptop", TokenScope.READ)
        async with client_of(create_app(agent), authorization=f"Bearer {token}") as client:
            answer = await client.get("/v1/info", headers={"x-request-id": "my-request-1"})
            assert answer.status_code == 200
            assert answer.headers["x-request-id"] == "my-request-1"
            forged = await client.get("/v1/%0AERROR%20forged", headers={"x-request-id": "a b"})
            assert forged.status_code == 404
            assert forged.headers["x-request-id"] != "a b"
            wrong = await client.get("/v1/info", headers={"authorization": "Bearer wrong-and-secret"})
            assert wrong.status_code == 401
        assert token not in caplog.text

    with caplog.at_level(logging.DEBUG, logger="device_bench"):
        asyncio.run(act())
    assert "my-request-1 GET '/v1/info' 200" in caplog.text
    assert "wrong-and-secret" not in caplog.text
    assert all("\nERROR forged" not in record.getMessage() for record in caplog.records)


def test_every_refusal_is_one(tmp_path: Path) -> None:
    async def act() -> None:
        agent = build_agent(StateFolder(tmp_path), AgentLimits())
        token = agent.tokens.add("laptop", TokenScope.MEASURE)
        (tmp_path / "tokens.json.new").write_bytes(b"{")
        async with client_of(create_app(agent), authorization=f"Bearer {token}") as client:
            found = {
                "no_route": await client.get("/nowhere"),
                "no_method": await client.post("/v1/info"),
                "invalid": await client.get(f"/v1/jobs/{'a' * 32}?wait=-1"),
                "no_job": await client.get(f"/v1/jobs/{'a' * 32}"),
                "not_json": await client.put(
                    f"/v1/jobs/{'a' * 32}", content=b"{}", headers={"content-type": "text/plain"}
                ),
            }
            (tmp_path / "tokens.json.new").replace(tmp_path / "tokens.json")
            found["trouble"] = await client.get("/v1/info")
        for code, answer in found.items():
            assert Refusal.model_validate_json(answer.content).code == code
        assert found["no_method"].headers["allow"] == "GET"
        assert found["trouble"].status_code == 503
        assert int(found["trouble"].headers["retry-after"]) >= 1

    asyncio.run(act())


def test_a_token_that_may_only_read(tmp_path: Path) -> None:
    async def act() -> None:
        agent = build_agent(StateFolder(tmp_path), AgentLimits())
        token = agent.tokens.add("screen", TokenScope.READ)
        async with client_of(create_app(agent), authorization=f"Bearer {token}") as client:
            assert (await client.get("/v1/info")).status_code == 200
            for method, path in (
                ("PUT", f"/v1/artifacts/{'a' * 64}"),
                ("GET", f"/v1/artifacts/{'a' * 64}"),
                ("PUT", f"/v1/jobs/{'a' * 32}"),
                ("DELETE", f"/v1/jobs/{'a' * 32}"),
            ):
                answer = await client.request(method, path)
                assert answer.status_code == 403
                assert Refusal.model_validate_json(answer.content).code == "wrong_scope"
                assert token not in answer.text
        async with client_of(create_app(agent)) as stranger:
            answer = await stranger.get("/v1/info")
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert (await stranger.get("/v1/health")).json() == {"status": "ok"}
            assert (await stranger.get("/openapi.json")).status_code == 200

    asyncio.run(act())


def test_openapi_documents_security_and_refusals(tmp_path: Path) -> None:
    document = create_app(build_agent(StateFolder(tmp_path), AgentLimits())).openapi()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    text = str(document)
    for name in ("MeasureJob", "CompareJob", "PredictJob", "ProfileJob", "Refusal", "Measurement"):
        assert name in document["components"]["schemas"]
    references = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= set(document["components"]["schemas"])
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            answers = set(described["responses"])
            assert {"500", "503"} <= answers, (path, method)
            assert ("401" in answers) == ("security" in described) == (path != "/v1/health")
    assert "429" in document["paths"]["/v1/jobs/{job_id}"]["put"]["responses"]
