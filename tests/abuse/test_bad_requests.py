"""What an agent answers to those who mean it ill or make mistakes; it measures the next model after each."""

from __future__ import annotations

import gzip
import itertools
import secrets
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_agent import (
    LiveAgent,
    assert_measures,
    init,
    make_expired,
    outcome_of,
    request_of,
    running,
    serving,
    sha256,
    small_onnx,
    upload,
)

from device_bench.agent.certificate import fingerprint
from device_bench.errors import UntrustedAgentError
from device_bench.pinned import days_left, distrust, pinned_context
from device_bench.protocol import Measurement
from device_bench.wire import MeasureJob, Refusal


@pytest.fixture(autouse=True)
def measures_afterwards(agent: LiveAgent) -> Iterator[None]:
    yield
    assert_measures(agent)


def refused(answer: httpx.Response, status: int, code: str) -> Refusal:
    """The answer is this refusal."""
    assert answer.status_code == status, answer.text
    refusal = Refusal.model_validate_json(answer.content)
    assert refusal.code == code
    return refusal


WRONG_TOKENS: tuple[str | bytes, ...] = (
    "",
    "Bearer",
    "Bearer wrong",
    "Basic dXNlcjpwYXNz",
    "Bearer " + "a" * 20_000,
    b"Bearer \xff\xfe",
)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/info"),
        ("GET", f"/v1/artifacts/{'a' * 64}"),
        ("PUT", f"/v1/artifacts/{'a' * 64}"),
        ("PUT", f"/v1/jobs/{'a' * 32}"),
        ("GET", f"/v1/jobs/{'a' * 32}"),
        ("DELETE", f"/v1/jobs/{'a' * 32}"),
    ],
)
def test_wrong_token(agent: LiveAgent, method: str, path: str) -> None:
    with agent.client() as client:
        for authorization in WRONG_TOKENS:
            answer = client.request(method, path, headers={"authorization": authorization})
            refusal = refused(answer, 401, "no_token")
            assert "device-bench token" in refusal.message


def test_the_token_of_another_agent(agent: LiveAgent, tmp_path: Path) -> None:
    other, _ = init(tmp_path / "other")
    with agent.client(headers={"authorization": f"Bearer {other}"}) as client:
        refused(client.get("/v1/info"), 401, "no_token")


def test_expired_certificate(tmp_path: Path) -> None:
    state = tmp_path / "state"
    token, _ = init(state)
    make_expired(state)
    with serving(state, token, fingerprint(state / "certificate.pem")) as old:
        pem = (state / "certificate.pem").read_text()
        with pytest.raises(UntrustedAgentError, match="expired"):
            days_left(old.url, pem)
        with old.client(verify=pinned_context(pem)) as client, pytest.raises(httpx.ConnectError) as caught:
            client.get("/v1/info")
        told = distrust(old.url, caught.value)
        assert told is not None and "has expired" in str(told)
        assert "/v1/info" not in old.log.read_text()


def test_unknown_certificate(agent: LiveAgent, tmp_path: Path) -> None:
    init(tmp_path / "other")
    other = pinned_context((tmp_path / "other" / "certificate.pem").read_text())
    requests_before = agent.log.read_text().count("/v1/")
    with agent.client(verify=other) as client, pytest.raises(httpx.ConnectError) as caught:
        client.get("/v1/info")
    assert "does not show the certificate that was pinned" in str(distrust(agent.url, caught.value))
    assert agent.log.read_text().count("/v1/") == requests_before


def test_plain_http(agent: LiveAgent) -> None:
    with (
        httpx.Client(base_url=agent.url.replace("https", "http"), trust_env=False) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/v1/health")


def test_wrong_hash(agent: LiveAgent) -> None:
    name = sha256(b"something else")
    with agent.client() as client:
        refusal = refused(client.put(f"/v1/artifacts/{name}", content=small_onnx()), 422, "wrong_hash")
        assert client.head(f"/v1/artifacts/{name}").status_code == 404
    assert name in refusal.message and sha256(small_onnx()) in refusal.message
    assert not list((agent.state / "artifacts").glob("*.part"))


@pytest.mark.parametrize("declared", [True, False])
def test_too_large(agent: LiveAgent, declared: bool) -> None:
    content = secrets.token_bytes((1 << 20) + 1)
    body = content if declared else (content[i : i + 4096] for i in range(0, len(content), 4096))
    with agent.client() as client:
        answer = client.put(f"/v1/artifacts/{sha256(content)}", content=body)
        refused(answer, 413, "too_large")
        assert client.head(f"/v1/artifacts/{sha256(content)}").status_code == 404


def test_a_job_too_large(agent: LiveAgent) -> None:
    with agent.client(headers={"content-type": "application/json"}) as client:
        answer = client.put(f"/v1/jobs/{secrets.token_hex(16)}", content=b'{"kind": "' + b"x" * 200_000)
        refused(answer, 413, "too_large")


PATH_TRICKS = (
    "../tokens.json",
    "..%2ftokens.json",
    "%2e%2e%2ftokens.json",
    "..%5ctokens.json",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "%00" * 64,
    "a" * 63 + "%0a",
    "a" * 64 + "%0a",
    "A" * 64,
    "a" * 65,
    "a" * 64 + "%2e%2e",
    "%d9%a3" * 64,  # Arabic digits
)


def test_path_tricks(agent: LiveAgent) -> None:
    before = sorted(path.name for path in agent.state.iterdir())
    with agent.client() as client:
        for name in PATH_TRICKS:
            for method in ("GET", "PUT", "HEAD"):
                # As it stands: httpx would tidy the path up.
                url = httpx.URL(agent.url).copy_with(raw_path=f"/v1/artifacts/{name}".encode())
                answer = client.request(method, url, content=b"x" if method == "PUT" else None)
                assert answer.status_code in (400, 404, 405, 422), (name, method, answer.status_code)
                assert b"root:" not in answer.content and b"digest" not in answer.content
    assert sorted(path.name for path in agent.state.iterdir()) == before


def test_path_tricks_in_a_job(agent: LiveAgent) -> None:
    with agent.client() as client:
        for tricks in (
            {"sha256": "../tokens.json"},
            {"sha256": "/etc/passwd"},
            {"sha256": "a" * 63 + "/"},
            {"sha256": "a" * 64 + "\n"},
            {"sha256": ""},
            {"sha256": "a" * 64, "path": "/etc/passwd"},
        ):
            job = {"kind": "measure", "request": {"runtime": "onnxruntime", **tricks}}
            refused(client.put(f"/v1/jobs/{secrets.token_hex(16)}", json=job), 422, "invalid")


def test_gzip_bomb(agent: LiveAgent) -> None:
    """A body that would unpack to 1000 times its size is not unpacked."""
    content = bytes(64 << 20)
    packed = gzip.compress(content)
    assert len(packed) < 1 << 20
    with agent.client(headers={"content-encoding": "gzip"}) as client:
        refused(client.put(f"/v1/artifacts/{sha256(content)}", content=packed), 415, "encoded")
        job = client.put(f"/v1/jobs/{secrets.token_hex(16)}", content=packed)
        assert job.status_code in (413, 415, 422)


WRONG_SETTINGS: tuple[dict[str, object], ...] = (
    {"runtime": "caffe"},
    {"runtime": None},
    {"runtime": ["onnxruntime"]},
    {"accelerator": "../cpu"},
    {"accelerator": ""},
    {"threads": 0},
    {"threads": 1e9},
    {"cores": [[0]]},
    {"seed": -1},
    {"seed": 2**63},
    {"timing": {"warmup_seconds": -1}},
    {"timing": {"max_seconds": "soon"}},
    {"limits": {"wall_seconds": 0}},
    {"schema_version": 2},
    {"surprise": 1},
)


def test_a_job_that_is_none(agent: LiveAgent) -> None:
    with agent.client() as client:
        for change in WRONG_SETTINGS:
            job = {"kind": "measure", "request": {"sha256": "a" * 64, "runtime": "onnxruntime", **change}}
            refused(client.put(f"/v1/jobs/{secrets.token_hex(16)}", json=job), 422, "invalid")


def test_numbers_that_are_none(agent: LiveAgent) -> None:
    """Endless sampling is cut down to the agent's limits, so it is refused for the missing file alone."""
    with agent.client(headers={"content-type": "application/json"}) as client:
        for field in ("warmup_seconds", "min_seconds", "max_seconds"):
            for number in ("NaN", "-NaN", "1e999", "-Infinity"):
                content = (
                    f'{{"kind": "measure", "request": {{"sha256": "{"a" * 64}", "runtime": "onnxruntime", '
                    f'"timing": {{"{field}": {number}}}}}}}'
                )
                answer = client.put(f"/v1/jobs/{secrets.token_hex(16)}", content=content)
                assert answer.status_code == (404 if number == "1e999" else 422), (field, number)


def test_deep_json(agent: LiveAgent) -> None:
    with agent.client(headers={"content-type": "application/json"}) as client:
        answer = client.put(f"/v1/jobs/{secrets.token_hex(16)}", content=b"[" * 60_000)
        refused(answer, 422, "invalid")


def test_half_upload(agent: LiveAgent) -> None:
    content = small_onnx() + secrets.token_bytes(64)
    name = sha256(content)
    head = (
        f"PUT /v1/artifacts/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.token}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    host, port = httpx.URL(agent.url).host, httpx.URL(agent.url).port
    assert port is not None
    for part in (0, 1, len(content) // 2, len(content) - 1):
        plain = socket.create_connection((host, port), timeout=10)
        with agent.context().wrap_socket(plain, server_hostname=host) as raw:
            raw.sendall(head.encode() + content[:part])
    with agent.client() as client:
        assert client.head(f"/v1/artifacts/{name}").status_code == 404
        assert upload(client, content) == name  # whole, it is taken
    assert not list((agent.state / "artifacts").glob("*.part"))


def test_a_client_that_vanishes_during_the_handshake(agent: LiveAgent) -> None:
    host, port = httpx.URL(agent.url).host, httpx.URL(agent.url).port
    assert port is not None
    for content in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", secrets.token_bytes(500)):
        with socket.create_connection((host, port), timeout=10) as plain:
            plain.sendall(content)


def test_old_tls(agent: LiveAgent) -> None:
    old = agent.context()
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with agent.client(verify=old) as client, pytest.raises(httpx.ConnectError):
        client.get("/v1/health")


JUMPING = """
import time
_wall, _calls = time.time, [0]
def _jumping():
    _calls[0] += 1
    return _wall() + (-1) ** _calls[0] * 86400.0 * 365 * (_calls[0] % 5)
time.time = _jumping
time.time_ns = lambda: int(_jumping() * 1e9)
"""


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """The agent's wall clock runs years to and fro; leases, deadlines and times do not depend on it."""
    with running(tmp_path / "state", "--lease", "5", prelude=JUMPING) as jumping:
        with jumping.client() as client:
            clocks = [client.get("/v1/info").json()["clock_unix_ns"] for _ in range(6)]
            assert any(later < sooner for sooner, later in itertools.pairwise(clocks))
            name = upload(client, small_onnx())
            for _ in range(3):
                outcome = outcome_of(client, MeasureJob(request=request_of(name)))
                assert isinstance(outcome, Measurement)
        assert_measures(jumping)
