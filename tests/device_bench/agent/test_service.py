"""A real agent over loopback TLS: what a client meets from its first job to the agent's end."""

from __future__ import annotations

import io
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from live_agent import (
    LiveAgent,
    failure_of,
    npy,
    outcome_of,
    request_of,
    running,
    serving,
    sha256,
    small_onnx,
    upload,
    weights,
)

from device_bench.agent.tokens import Tokens
from device_bench.protocol import Comparison, Failure, FailureKind, Measurement, Profile, Rounds, RuntimeName
from device_bench.wire import (
    AgentInfo,
    CompareJob,
    Job,
    JobState,
    JobStatus,
    MeasureJob,
    Predicted,
    PredictJob,
    ProfileJob,
    Scope,
)

FAULTY = (
    "from device_bench.runtimes import MODULES\n"
    "from device_bench.protocol import RuntimeName\n"
    "MODULES[RuntimeName.LITERT] = 'faulty_runtime'"
)
FAULTY_FOLDER = str(Path(__file__).resolve().parents[1])
IDLE_BYTES = 80 << 20
# Generous: only a bug makes a test wait that long.
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAgent]:
    state = tmp_path_factory.mktemp("service") / "state"
    with running(state, "--lease", "3", "--queue", "2", prelude=FAULTY, PYTHONPATH=FAULTY_FOLDER) as live:
        yield live


@pytest.fixture
def client(agent: LiveAgent) -> Iterator[httpx.Client]:
    with agent.client() as made:
        yield made


def hanging(client: httpx.Client) -> MeasureJob:
    """A job that runs until it is killed."""
    return MeasureJob(request=request_of(upload(client, b"hang"), RuntimeName.LITERT))


def put(client: httpx.Client, job: Job) -> str:
    """Put a job in line; its path."""
    path = f"/v1/jobs/{secrets.token_hex(16)}"
    headers = {"content-type": "application/json"}
    answer = client.put(path, content=job.model_dump_json(), headers=headers)
    assert answer.status_code == 200, answer.text
    return path


def status(answer: httpx.Response) -> JobStatus:
    assert answer.status_code == 200, answer.text
    return JobStatus.model_validate_json(answer.content)


def await_state(client: httpx.Client, path: str, state: JobState) -> JobStatus:
    stop = time.monotonic() + PATIENCE_SECONDS
    while (found := status(client.get(path))).state is not state:
        assert time.monotonic() < stop, found
        time.sleep(0.02)
    return found


def ask(agent: LiveAgent, path: str) -> ssl.SSLSocket:
    """Send a GET, whole, and leave its answer to be read."""
    port = int(agent.url.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    secure = agent.context().wrap_socket(connection, server_hostname="127.0.0.1")
    secure.sendall(
        f"GET {path} HTTP/1.1\r\nhost: board\r\nauthorization: Bearer {agent.token}\r\n\r\n".encode()
    )
    return secure


def children(agent: LiveAgent) -> list[psutil.Process]:
    """The measuring processes that live."""
    found = psutil.Process(agent.process.pid).children(recursive=True)
    return [child for child in found if child.status() != psutil.STATUS_ZOMBIE]


def test_measuring_comparing_predicting(client: httpx.Client) -> None:
    import numpy as np

    request = request_of(upload(client, small_onnx()))
    measured = outcome_of(client, MeasureJob(request=request))
    assert isinstance(measured, Measurement)
    assert measured.memory.file_bytes == len(small_onnx())
    compared = outcome_of(
        client, CompareJob(first=request, second=request, rounds=Rounds(count=3, seconds=0.02))
    )
    assert isinstance(compared, Comparison)
    assert compared.rounds == 3
    inputs = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    predicted = outcome_of(client, PredictJob(request=request, inputs_sha256=upload(client, npy(inputs))))
    assert isinstance(predicted, Predicted)
    content = client.get(f"/v1/artifacts/{predicted.outputs_sha256}").content
    assert (len(content), sha256(content)) == (predicted.size_bytes, predicted.outputs_sha256)
    outputs = np.load(io.BytesIO(content), allow_pickle=False)
    np.testing.assert_allclose(outputs, np.maximum(inputs @ weights(), 0), rtol=1e-5, atol=1e-6)
    profiled = outcome_of(client, ProfileJob(request=request))
    assert isinstance(profiled, Profile)
    assert profiled.operators[-1].outputs == ("y",)


def test_failures_name_no_path_of_the_board(client: httpx.Client, agent: LiveAgent) -> None:
    for content in (b"no model", b"refuse", b"raise"):
        runtime = RuntimeName.ONNXRUNTIME if content == b"no model" else RuntimeName.LITERT
        failure = failure_of(client, MeasureJob(request=request_of(upload(client, content), runtime)))
        assert str(agent.state) not in failure.message


def test_what_the_board_is(client: httpx.Client) -> None:
    stop = time.monotonic() + PATIENCE_SECONDS
    while True:
        info = AgentInfo.model_validate_json(client.get("/v1/info").content)
        found = {runtime.runtime: runtime for runtime in info.runtimes}
        if found[RuntimeName.LITERT].version == "0.0-faulty":  # it has been looked at
            break
        assert time.monotonic() < stop, info
        time.sleep(0.05)
    assert set(found) == set(RuntimeName)
    assert "cpu" in found[RuntimeName.ONNXRUNTIME].accelerators
    assert (info.queue_limit, info.artifact_limit_bytes) == (2, 512 << 20)
    assert abs(info.clock_unix_ns - time.time_ns()) < PATIENCE_SECONDS * 1e9


def test_taking_a_running_job_back_kills_it(client: httpx.Client, agent: LiveAgent) -> None:
    path = put(client, hanging(client))
    await_state(client, path, JobState.RUNNING)
    measuring = children(agent)
    assert measuring
    client.delete(path)
    done = await_state(client, path, JobState.DONE)
    assert isinstance(done.outcome, Failure)
    assert done.outcome.kind is FailureKind.CANCELLED
    assert not set(measuring) & set(children(agent))
    assert isinstance(
        outcome_of(client, MeasureJob(request=request_of(upload(client, small_onnx())))), Measurement
    )


def test_whoever_vanishes_frees_the_board(client: httpx.Client, agent: LiveAgent) -> None:
    with agent.client() as other:
        path = put(other, hanging(other))
        await_state(other, path, JobState.RUNNING)
    # Another client's job gets its turn though nobody took the first one back.
    assert isinstance(
        outcome_of(client, MeasureJob(request=request_of(upload(client, small_onnx())))), Measurement
    )
    outcome = status(client.get(path)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.CANCELLED


def test_a_full_line(client: httpx.Client) -> None:
    job = hanging(client)
    paths = [put(client, job)]
    await_state(client, paths[0], JobState.RUNNING)
    paths += [put(client, job) for _ in range(2)]
    path = f"/v1/jobs/{secrets.token_hex(16)}"
    refused = client.put(path, content=job.model_dump_json(), headers={"content-type": "application/json"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get(path).status_code == 404
    for taken in reversed(paths):
        client.delete(taken)
    await_state(client, paths[0], JobState.DONE)


def test_a_token_comes_and_goes_while_the_agent_runs(agent: LiveAgent) -> None:
    tokens = Tokens(agent.state / "tokens.json", time.time)
    token = tokens.add("guest", Scope.READ)
    with agent.client(headers={"authorization": f"Bearer {token}"}) as guest:
        assert guest.get("/v1/info").status_code == 200
        tokens.revoke("guest")
        assert guest.get("/v1/info").status_code == 401


def test_a_second_agent_on_the_same_folder_is_refused(agent: LiveAgent) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "device_bench.cli", "serve", "--state", str(agent.state), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "another agent serves from" in done.stderr


def test_a_port_that_is_taken(agent: LiveAgent, tmp_path: Path) -> None:
    port = agent.url.rpartition(":")[2]
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_bytes((agent.state / name).read_bytes())
    words = ["serve", "--state", str(tmp_path), "--host", "127.0.0.1", "--port", port]
    done = subprocess.run(
        [sys.executable, "-m", "device_bench.cli", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr


def test_an_idle_agent_is_small(client: httpx.Client, agent: LiveAgent) -> None:
    outcome_of(client, MeasureJob(request=request_of(upload(client, small_onnx()))))
    stop = time.monotonic() + PATIENCE_SECONDS
    while agent.resident_bytes() >= IDLE_BYTES:  # what a job took is given back after a while
        assert time.monotonic() < stop, agent.resident_bytes()
        time.sleep(0.2)


def test_stopping_answers_who_waits_and_a_restart_remembers(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(state, prelude=FAULTY, PYTHONPATH=FAULTY_FOLDER) as first:
        with first.client() as client:
            path = put(client, hanging(client))
            await_state(client, path, JobState.RUNNING)
        waiting = ask(first, f"{path}?wait=20")
    # Left by SIGTERM: the agent ended by itself, and cleanly.
    with waiting:
        answer = b"".join(iter(lambda: waiting.recv(1 << 16), b""))
    answered = JobStatus.model_validate_json(answer.partition(b"\r\n\r\n")[2])
    assert first.process.returncode == 0
    first.log.unlink()
    with serving(state, first.token, first.fingerprint) as second, second.client() as client:
        remembered = status(client.get(path))
    for found in (answered, remembered):
        assert isinstance(found.outcome, Failure)
        assert found.outcome.kind is FailureKind.AGENT_RESTARTED


def test_a_killed_agent_forgets_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        pytest.raises(AssertionError, match="the agent ended"),
        running(state, prelude=FAULTY, PYTHONPATH=FAULTY_FOLDER) as first,
        first.client() as client,
    ):
        path = put(client, hanging(client))
        await_state(client, path, JobState.RUNNING)
        left = children(first)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(PATIENCE_SECONDS)
    for child in left:  # nobody is left to do it
        child.kill()
    first.log.unlink()
    with serving(state, first.token, first.fingerprint) as second, second.client() as client:
        outcome = status(client.get(path)).outcome
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.AGENT_RESTARTED
        assert isinstance(
            outcome_of(client, MeasureJob(request=request_of(upload(client, small_onnx())))), Measurement
        )
