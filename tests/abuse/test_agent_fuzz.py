"""Random requests against a real agent: it answers each as its OpenAPI says, and measures afterwards."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
import requests
import schemathesis
from fuzz_counts import COUNTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_agent import LiveAgent, assert_measures, outcome_of, request_of, sha256, small_onnx, upload
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from device_bench.protocol import Failure, Limits, Measurement, RuntimeName, TimingPolicy
from device_bench.wire import MeasureJob, Refusal

SLOW = pytest.mark.slow
QUICKLY = 12
LONG = 200
OPERATIONS = (
    "GET /v1/health",
    "GET /v1/info",
    "HEAD /v1/artifacts/{sha256}",
    "PUT /v1/artifacts/{sha256}",
    "GET /v1/artifacts/{sha256}",
    "PUT /v1/jobs/{job_id}",
    "GET /v1/jobs/{job_id}",
    "DELETE /v1/jobs/{job_id}",
)
# Our requests carry a valid token whatever is generated; wrong ones are tried in test_bad_requests.
NOT_ASKED = {"ignored_auth"}
# Random bytes are not what a random hash says, and the refusal of that is the right answer.
NOT_ASKED_OF_UPLOADS = NOT_ASKED | {"positive_data_acceptance"}


@pytest.fixture(autouse=True)
def measures_afterwards(agent: LiveAgent) -> Iterator[None]:
    yield
    assert_measures(agent)


def fuzzing(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many cases, each as long as it takes, none kept on disk."""
    return settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def conforming(agent: LiveAgent, label: str, examples: int) -> None:
    """Requests that the OpenAPI document allows and such as it does not, each answered as it says."""
    load_all_checks()
    certificate = str(agent.state / "certificate.pem")
    schema = schemathesis.openapi.from_url(f"{agent.url}/openapi.json", verify=certificate)
    found = {result.ok().label: result.ok() for result in schema.get_all_operations()}
    assert sorted(found) == sorted(OPERATIONS)
    excluded = NOT_ASKED_OF_UPLOADS if label.startswith("PUT /v1/artifacts") else NOT_ASKED
    checks = [check for check in CHECKS.get_all() if check.__name__ not in excluded]
    with requests.Session() as session:
        session.trust_env = False
        session.headers["authorization"] = f"Bearer {agent.token}"
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if (label, mode) == ("GET /v1/health", GenerationMode.NEGATIVE):
                continue  # it takes nothing, so nothing about it can be wrong

            @fuzzing(examples)
            @given(found[label].as_strategy(generation_mode=mode))
            def one(case: schemathesis.Case) -> None:
                COUNTS["requests made from the OpenAPI document"] += 1
                answer = case.call(base_url=agent.url, session=session, verify=certificate)
                assert answer.status_code < 500
                case.validate_response(answer, checks=checks)

            one()


@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_as_openapi_says(agent: LiveAgent, label: str) -> None:
    conforming(agent, label, QUICKLY)


@SLOW
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_as_openapi_says_long(agent: LiveAgent, label: str) -> None:
    conforming(agent, label, LONG)


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    """Content cut at these places."""
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(places)]


def uploading(agent: LiveAgent, examples: int) -> None:
    """Random content in random pieces arrives as it was sent."""
    with agent.client() as client:

        @fuzzing(examples)
        @given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=8), st.booleans())
        def one(content: bytes, cuts: list[int], right: bool) -> None:
            COUNTS["uploads of random bytes in random pieces"] += 1
            # Longer than all that is uploaded here: what is there already is not read, and never refused.
            name = sha256(content if right else content.ljust(6000, b"!"))
            answer = client.put(f"/v1/artifacts/{name}", content=iter(pieces(content, cuts)))
            if right:
                assert answer.status_code in (200, 201)
                assert client.get(f"/v1/artifacts/{name}").content == content
            else:
                assert Refusal.model_validate_json(answer.content).code == "wrong_hash"
                assert client.head(f"/v1/artifacts/{name}").status_code == 404

        one()


def test_random_uploads(agent: LiveAgent) -> None:
    uploading(agent, 60)


@SLOW
def test_random_uploads_long(agent: LiveAgent) -> None:
    uploading(agent, 1000)


def raw_answer(agent: LiveAgent, content: bytes) -> bytes:
    """What comes back for these bytes until the agent closes the connection or we have ended ours."""
    url = httpx.URL(agent.url)
    assert url.port is not None
    plain = socket.create_connection((url.host, url.port), timeout=10)
    answer = b""
    # Refused by a closed connection, as a break of TLS or of TCP.
    with agent.context().wrap_socket(plain, server_hostname=url.host) as raw, contextlib.suppress(OSError):
        raw.sendall(content)
        raw.settimeout(0.3)
        while chunk := raw.recv(1 << 16):
            answer += chunk
    return answer


LENGTHS = st.one_of(
    st.integers(-10, 400).map(str),
    st.sampled_from(
        ["", "ten", "0x10", "+5", "1e3", "5, 5", "5\r\nContent-Length: 6", "9" * 400, "5;", " 5"]
    ),
)
FRAMINGS = st.one_of(
    LENGTHS.map(lambda length: f"Content-Length: {length}\r\n"),
    st.sampled_from(
        [
            "",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Expect: 100-continue\r\nContent-Length: 4\r\n",
        ]
    ),
)


def lying(agent: LiveAgent, examples: int) -> None:
    """Uploads whose framing lies are refused, or are what their hash says."""

    @fuzzing(examples)
    @given(st.binary(max_size=300), FRAMINGS, st.booleans())
    def one(content: bytes, framing: str, right: bool) -> None:
        COUNTS["uploads over raw TLS that lie about their length"] += 1
        name = sha256(content if right else secrets.token_bytes(8))
        head = (
            f"PUT /v1/artifacts/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {agent.token}\r\n"
            f"Connection: close\r\n{framing}\r\n"
        )
        answer = raw_answer(agent, head.encode() + content)
        assert not answer or answer.startswith(b"HTTP/1.1 ")
        status = int(answer.split()[1]) if answer else 0
        assert status < 500, answer
        with agent.client() as client:
            stored = client.get(f"/v1/artifacts/{name}")
        assert stored.status_code == 404 or sha256(stored.content) == name

    one()
    assert not list((agent.state / "artifacts").glob("*.part"))


def test_lies_about_length(agent: LiveAgent) -> None:
    lying(agent, 40)


@SLOW
def test_lies_about_length_long(agent: LiveAgent) -> None:
    lying(agent, 150)


def raw_bytes(agent: LiveAgent, examples: int) -> None:
    """Whatever comes through TLS, the agent answers by HTTP or closes."""

    @fuzzing(examples)
    @given(st.binary(min_size=1, max_size=300))
    def one(content: bytes) -> None:
        COUNTS["random bytes over raw TLS"] += 1
        answer = raw_answer(agent, content + b"\r\n\r\n")
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))

    one()


def test_random_bytes(agent: LiveAgent) -> None:
    raw_bytes(agent, 20)


@SLOW
def test_random_bytes_long(agent: LiveAgent) -> None:
    raw_bytes(agent, 150)


SETTINGS = st.fixed_dictionaries(
    {
        "runtime": st.sampled_from(RuntimeName),
        "accelerator": st.sampled_from(["cpu", "cuda", "tensorrt", "xnnpack", "plain", "x"]),
        "threads": st.sampled_from([1, 2, 3, 1024]),
        "cores": st.sampled_from([(), (0,), (0, 0), (4000,), (1 << 40,), (-1,)]),
        "seed": st.sampled_from([0, 1, 2**63 - 1]),
        "timing": st.builds(
            TimingPolicy,
            warmup_runs=st.integers(1, 20),
            warmup_seconds=st.floats(0, 0.01),
            min_samples=st.integers(1, 20),
            min_seconds=st.floats(0, 0.01),
            max_seconds=st.floats(1e-9, 0.5),
        ),
        "limits": st.builds(
            Limits,
            wall_seconds=st.sampled_from([1e-6, 0.01, 10.0]),
            cpu_seconds=st.sampled_from([1, 100]),
            address_space_bytes=st.sampled_from([None, 1, 1 << 20, 1 << 28, 1 << 60]),
            file_bytes=st.sampled_from([1, 1 << 20]),
            processes=st.sampled_from([None, 1, 1000]),
        ),
    }
)


def running_jobs(agent: LiveAgent, examples: int) -> None:
    """Whatever settings a job has, it ends as a measurement or as a typed failure that says why."""
    with agent.client() as client:
        name = upload(client, small_onnx())

        @fuzzing(examples)
        @given(SETTINGS)
        def one(chosen: dict[str, object]) -> None:
            COUNTS["jobs with random settings that were run"] += 1
            outcome = outcome_of(client, MeasureJob(request=request_of(name, **chosen)))  # type: ignore[arg-type]
            if isinstance(outcome, Failure):
                # Of the board's or of the runtime's making, and never a mistake of the agent.
                assert outcome.message and not outcome.message.startswith("the agent failed")
            else:
                assert isinstance(outcome, Measurement)
                assert chosen["runtime"] is RuntimeName.ONNXRUNTIME

        one()


def test_random_settings(agent: LiveAgent) -> None:
    running_jobs(agent, 20)


@SLOW
def test_random_settings_long(agent: LiveAgent) -> None:
    running_jobs(agent, 80)
