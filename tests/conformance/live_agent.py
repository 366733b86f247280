"""A real agent in its own process on loopback, over TLS, for the tests that abuse and load one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from device_bench.agent.certificate import make_certificate
from device_bench.protocol import Failure, Limits, Measurement, RuntimeName, TimingPolicy
from device_bench.wire import (
    Job,
    JobState,
    JobStatus,
    MeasureJob,
    Outcome,
    Pairing,
    Predicted,
    PredictJob,
    RemoteRequest,
)

QUICK = TimingPolicy(warmup_seconds=0, min_samples=8, min_seconds=0, max_seconds=5)
_START_SECONDS = 60.0
_DONE_SECONDS = 60.0
_ADDRESS = re.compile(r"serving on (https://\S+:\d+),")
_SERVE = "from device_bench.cli import main; main()"


@dataclass
class LiveAgent:
    """What a client knows of a running agent, and its process."""

    url: str
    token: str
    fingerprint: str
    state: Path
    log: Path
    process: subprocess.Popen[bytes]

    def context(self) -> ssl.SSLContext:
        """Trusts this agent's certificate."""
        return ssl.create_default_context(cafile=str(self.state / "certificate.pem"))

    def client(self, **options: Any) -> httpx.Client:
        """A connection that shows the token."""
        headers = {"authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        options.setdefault("verify", self.context())
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    def resident_bytes(self) -> int:
        """What the agent's process holds now."""
        import psutil

        return int(psutil.Process(self.process.pid).memory_info().rss)


def init(state: Path) -> tuple[str, str]:
    """`device-bench init` in this folder: the token and the certificate's fingerprint."""
    done = subprocess.run(
        [sys.executable, "-c", _SERVE, "init", "--state", str(state), "--name", "127.0.0.1", "--json"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    pairing = Pairing.from_line(json.loads(done.stdout)["pairing"])
    return pairing.token, pairing.fingerprint


@contextlib.contextmanager
def running(state: Path, *options: str, prelude: str = "", **environment: str) -> Iterator[LiveAgent]:
    """Serve from a folder (made where it is missing) on a free port until the block ends.

    Args:
        state: the agent's folder.
        options: more of `device-bench serve`.
        prelude: code to run in the agent's process before it serves.
        environment: more of its environment.
    """
    token, fingerprint = init(state)
    with serving(state, token, fingerprint, *options, prelude=prelude, **environment) as agent:
        yield agent


@contextlib.contextmanager
def serving(
    state: Path, token: str, fingerprint: str, *options: str, prelude: str = "", **environment: str
) -> Iterator[LiveAgent]:
    """As `running`, from a folder that `init` has made."""
    words = [sys.executable, "-c", f"{prelude}\n{_SERVE}", "serve", "--state", str(state)]
    words += ["--host", "127.0.0.1", "--port", "0", *options]
    pairing = Pairing(fingerprint=fingerprint, token=token)
    with launched(words, {**os.environ, **environment}, state, pairing) as agent:
        yield agent


@contextlib.contextmanager
def launched(
    words: Sequence[str], environment: Mapping[str, str], state: Path, pairing: Pairing
) -> Iterator[LiveAgent]:
    """The agent that a command serves, until the block ends.

    Args:
        words: the command; it must serve on loopback and from `state`.
        environment: the whole of it.
        state: the agent's folder, initialised.
        pairing: what `init` gave.
    """
    agent = spawned(words, environment, state, pairing)
    try:
        yield agent
        assert agent.process.poll() is None, f"the agent ended: {agent.log.read_text()[-2000:]}"
    finally:
        end(agent)


def spawned(words: Sequence[str], environment: Mapping[str, str], state: Path, pairing: Pairing) -> LiveAgent:
    """As `launched`, for a test that ends the agent itself."""
    log = state / "agent.log"
    with log.open("ab") as file:
        process = subprocess.Popen(list(words), stdout=file, stderr=file, env=dict(environment))
    try:
        url = _address(log, process)
    except BaseException:
        process.kill()
        raise
    return LiveAgent(url, pairing.token, pairing.fingerprint, state, log, process)


def end(agent: LiveAgent) -> None:
    """Tell an agent to end, and see to it."""
    agent.process.send_signal(signal.SIGTERM)
    try:
        agent.process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        agent.process.kill()
        agent.process.wait()


def make_expired(state: Path) -> None:
    """Put a certificate in the place of the agent's that was valid for a day, long ago."""
    from datetime import UTC, datetime

    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    make_certificate(state / "certificate.pem", state / "key.pem", ["127.0.0.1"], long_ago, days=1)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    stop = time.monotonic() + _START_SECONDS
    while time.monotonic() < stop:
        found = _ADDRESS.search(log.read_text())
        if found:
            return found[1]
        assert process.poll() is None, f"the agent did not start: {log.read_text()[-2000:]}"
        time.sleep(0.02)
    raise AssertionError(f"the agent did not start within {_START_SECONDS:g} s")


def sha256(content: bytes) -> str:
    """Under which name content is uploaded."""
    return hashlib.sha256(content).hexdigest()


def upload(client: httpx.Client, content: bytes) -> str:
    """Put content among the artifacts; its hash."""
    name = sha256(content)
    answer = client.put(f"/v1/artifacts/{name}", content=content)
    assert answer.status_code in (200, 201), answer.text
    return name


def request_of(name: str, runtime: RuntimeName = RuntimeName.ONNXRUNTIME, **settings: Any) -> RemoteRequest:
    """A quick request for an uploaded file."""
    settings.setdefault("timing", QUICK)
    settings.setdefault("limits", Limits(wall_seconds=30))
    return RemoteRequest(sha256=name, runtime=runtime, **settings)


def outcome_of(client: httpx.Client, job: Job) -> Outcome:
    """Put a job in line and wait for its end."""
    job_id = secrets.token_hex(16)
    content = job.model_dump_json()
    answer = client.put(f"/v1/jobs/{job_id}", content=content, headers={"content-type": "application/json"})
    stop = time.monotonic() + _DONE_SECONDS
    while True:
        assert answer.status_code == 200, answer.text
        status = JobStatus.model_validate_json(answer.content)
        if status.state is JobState.DONE:
            assert status.outcome is not None
            return status.outcome
        assert time.monotonic() < stop, f"job {job_id} is not done after {_DONE_SECONDS:g} s"
        answer = client.get(f"/v1/jobs/{job_id}", params={"wait": 5})


def failure_of(client: httpx.Client, job: Job) -> Failure:
    """The outcome of a job that must fail."""
    outcome = outcome_of(client, job)
    assert isinstance(outcome, Failure), outcome
    return outcome


def small_onnx() -> bytes:
    """y = relu(x @ weights()), x float32 [n, 4]."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weights(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def weights() -> np.ndarray:
    """Of `small_onnx`, float32 [4, 3]."""
    return np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32)


def npy(array: np.ndarray) -> bytes:
    """An array as an .npy file."""
    import io

    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def assert_measures(agent: LiveAgent) -> None:
    """The next model is measured, and computed right."""
    with agent.client() as client:
        model = upload(client, small_onnx())
        measured = outcome_of(client, MeasureJob(request=request_of(model)))
        assert isinstance(measured, Measurement), measured
        assert measured.latency.samples == len(measured.samples_ns) >= QUICK.min_samples
        assert 0 < measured.latency.min_ms <= measured.latency.p50_ms <= measured.latency.p99_ms
        inputs = np.random.default_rng(secrets.randbits(32)).standard_normal((5, 4)).astype(np.float32)
        job = PredictJob(request=request_of(model), inputs_sha256=upload(client, npy(inputs)))
        predicted = outcome_of(client, job)
        assert isinstance(predicted, Predicted), predicted
        assert_outputs(client, predicted, np.maximum(inputs @ weights(), 0))


def assert_outputs(client: httpx.Client, predicted: Predicted, expected: np.ndarray) -> None:
    """The stored outputs of a prediction are these; NaN equals NaN."""
    import io

    content = client.get(f"/v1/artifacts/{predicted.outputs_sha256}").content
    assert sha256(content) == predicted.outputs_sha256
    outputs = np.load(io.BytesIO(content), allow_pickle=False)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
