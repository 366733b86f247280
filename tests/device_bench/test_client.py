"""A bench far away: the client against a real agent in its own process, on loopback, over TLS."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from bench_cases import QUICK
from live_agent import LiveAgent, make_expired, running, serving, sha256, small_onnx, weights

from device_bench import local
from device_bench.agent.certificate import fingerprint
from device_bench.client import AgentBench
from device_bench.connection import AgentAddress, Means, Patience
from device_bench.errors import BadInputError, RefusedError, RunError, UnreachableError, UntrustedAgentError
from device_bench.pinned import fetch_certificate, pinned_context
from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Failure,
    FailureKind,
    Measurement,
    Rounds,
    RuntimeName,
    TimingPolicy,
)
from device_bench.wire import JobStatus, Predicted

SHORT_ROUNDS = Rounds(count=3, seconds=0.02)
# Longer than any test takes: whoever waits for it to end fails.
ENDLESS = TimingPolicy(min_seconds=600, max_seconds=600)


class Requests(httpx.BaseTransport):
    """The real way to an agent, which remembers what went along it, and what tests do to it on the way."""

    def __init__(self, bench_of: Callable[[Means], AgentBench]) -> None:
        address = bench_of(Means()).address
        self._real = httpx.HTTPTransport(verify=pinned_context(address.certificate), trust_env=False)
        self.seen: list[str] = []
        self.before: Callable[[httpx.Request], None] = lambda request: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        self.seen.append(f"{request.method} {request.url.path.split('/')[2]}")
        self.before(request)
        return self._real.handle_request(request)

    def close(self) -> None:
        """Stays open, since a bench connects anew for each job; `shut` closes it."""

    def shut(self) -> None:
        """No more requests."""
        self._real.close()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAgent]:
    with running(tmp_path_factory.mktemp("agent")) as found:
        yield found


def fetched(agent: LiveAgent) -> str:
    """Its certificate. An agent says that it serves a moment before it answers."""
    for _ in range(200):
        with contextlib.suppress(UnreachableError):
            return fetch_certificate(agent.url, agent.fingerprint)
        time.sleep(0.05)
    raise AssertionError(agent.log.read_text()[-2000:])


def bench_of(agent: LiveAgent, means: Means | None = None, **patience: float) -> AgentBench:
    """A client that was paired with an agent."""
    certificate = fetched(agent)
    address = AgentAddress(agent.url, agent.token, certificate)
    return AgentBench(address, Patience(**patience), means or Means())


@pytest.fixture(scope="module")
def bench(agent: LiveAgent) -> AgentBench:
    return bench_of(agent)


@pytest.fixture
def requests(agent: LiveAgent) -> Iterator[Requests]:
    found = Requests(lambda means: bench_of(agent, means))
    yield found
    found.shut()


@pytest.fixture
def watched(agent: LiveAgent, requests: Requests) -> AgentBench:
    """A client whose requests are remembered."""
    return bench_of(agent, Means(transport=requests))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that no agent has seen before: y = relu(x @ weights)."""
    path = tmp_path / "small.onnx"
    # Bytes that protobuf keeps as a field nobody knows: other bytes, the same model.
    path.write_bytes(small_onnx() + b"\xfa\xff\x01\x10" + os.urandom(16))
    return path


def request_for(path: Path, **settings: object) -> BenchRequest:
    """A quick request."""
    return BenchRequest(
        **({"path": str(path), "runtime": RuntimeName.ONNXRUNTIME, "timing": QUICK} | settings)
    )


def test_measure(bench: AgentBench, model: Path) -> None:
    found = bench.measure(request_for(model, threads=2))
    assert isinstance(found, Measurement), found
    assert len(found.samples_ns) >= QUICK.min_samples
    assert found.conditions.threads == 2
    assert found.memory.file_bytes == model.stat().st_size


def test_predict_gives_what_this_machine_gives(bench: AgentBench, model: Path) -> None:
    inputs = np.random.default_rng(1).standard_normal((700, 4)).astype(np.float32)
    there, here = bench.predict(request_for(model), inputs), local.predict(request_for(model), inputs)
    assert isinstance(there, np.ndarray)
    assert isinstance(here, np.ndarray)
    assert there.dtype == np.float32
    np.testing.assert_array_equal(there, here)
    np.testing.assert_allclose(there, np.maximum(inputs @ weights(), 0), rtol=1e-5, atol=1e-6)


def test_compare(agent: LiveAgent, bench: AgentBench, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(small_onnx())
    found = bench.compare(request_for(model), request_for(other, threads=2), SHORT_ROUNDS)
    assert isinstance(found, Comparison), found
    assert found.rounds == SHORT_ROUNDS.count
    assert any("unlike conditions" in warning for warning in found.warnings)
    assert not any(str(agent.state) in warning for warning in found.warnings)


def test_a_failure_names_the_file_as_it_is_named_here(bench: AgentBench, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model" + os.urandom(8))
    found = bench.measure(request_for(broken))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.NOT_A_MODEL
    assert str(broken) in found.message


def test_reach(bench: AgentBench) -> None:
    reach = bench.reach()
    installed = {info.runtime for info in reach.info.runtimes if info.version}
    assert installed >= {RuntimeName.ONNXRUNTIME, RuntimeName.LITERT}
    assert 0 < reach.round_trip_seconds < 5
    assert abs(reach.clock_offset_seconds) < 5


def test_a_file_is_uploaded_once(watched: AgentBench, requests: Requests, model: Path) -> None:
    for _ in range(2):
        assert isinstance(watched.measure(request_for(model)), Measurement)
    assert requests.seen.count("HEAD artifacts") == 2
    assert requests.seen.count("PUT artifacts") == 1
    requests.seen.clear()
    assert isinstance(watched.compare(request_for(model), request_for(model), SHORT_ROUNDS), Comparison)
    assert "PUT artifacts" not in requests.seen


def test_a_file_that_is_evicted_meanwhile_is_uploaded_again(
    agent: LiveAgent, watched: AgentBench, requests: Requests, model: Path
) -> None:
    evicted = []

    def evict(request: httpx.Request) -> None:
        if request.method == "PUT" and "/jobs/" in request.url.path and not evicted:
            (found,) = [
                p for p in agent.state.rglob("*") if p.is_file() and p.read_bytes() == model.read_bytes()
            ]
            found.unlink()
            evicted.append(found)

    requests.before = evict
    assert isinstance(watched.measure(request_for(model)), Measurement)
    assert evicted
    assert requests.seen.count("PUT artifacts") == 2
    assert requests.seen.count("PUT jobs") == 2


def test_an_answer_that_got_lost_measures_nothing_twice(
    agent: LiveAgent, watched: AgentBench, requests: Requests, model: Path
) -> None:
    ids = []

    def lose(request: httpx.Request) -> None:
        if request.method == "PUT" and "/jobs/" in request.url.path:
            ids.append(request.url.path)
            if len(ids) == 1:
                requests._real.handle_request(request).read()  # the agent got it
                raise httpx.ReadError("the answer got lost", request=request)

    requests.before = lose
    before = agent.log.read_text().count("is done after")
    assert isinstance(watched.measure(request_for(model)), Measurement)
    assert len(ids) == 2
    assert ids[0] == ids[1]
    assert agent.log.read_text().count("is done after") == before + 1


def test_outputs_that_are_evicted_before_they_are_fetched_are_made_again(
    agent: LiveAgent, watched: AgentBench, requests: Requests, model: Path
) -> None:
    evicted = []

    def evict(request: httpx.Request) -> None:
        if request.method == "GET" and "/artifacts/" in request.url.path and not evicted:
            (found,) = agent.state.rglob(request.url.path.rpartition("/")[2])
            found.unlink()
            evicted.append(found)

    requests.before = evict
    inputs = np.random.default_rng(2).standard_normal((9, 4)).astype(np.float32)
    found = watched.predict(request_for(model), inputs)
    assert evicted
    np.testing.assert_allclose(found, np.maximum(inputs @ weights(), 0), rtol=1e-5, atol=1e-6)


def test_outputs_that_are_damaged_on_the_way_are_no_outputs(
    watched: AgentBench, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    def read_damaged(kind: type, response: httpx.Response) -> JobStatus:
        status = JobStatus.model_validate_json(response.content)
        if isinstance(status.outcome, Predicted):
            # Another file's name: what comes is not what was promised.
            other = sha256(model.read_bytes())
            outcome = status.outcome.model_copy(update={"outputs_sha256": other})
            return status.model_copy(update={"outcome": outcome})
        return status

    monkeypatch.setattr("device_bench.client._read", read_damaged)
    found = None
    with pytest.raises(ValueError):
        found = watched.predict(request_for(model), np.zeros((1, 4), np.float32))
    assert found is None


def test_ctrl_c_takes_the_job_back(agent: LiveAgent, model: Path) -> None:
    def interrupt(text: str) -> None:
        if text == "running on the board":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench_of(agent, Means(tell=interrupt)).measure(request_for(model, timing=ENDLESS))
    # The board is free for the next one at once.
    assert isinstance(bench_of(agent).measure(request_for(model)), Measurement)
    assert "cancelled" in agent.log.read_text()


def test_a_file_that_is_not_there(bench: AgentBench) -> None:
    with pytest.raises(BadInputError, match="there is no file"):
        bench.measure(request_for(Path("/nowhere.onnx")))


@pytest.mark.parametrize(
    "inputs", [np.zeros((2, 4)), np.zeros(4, np.float32), np.zeros((0, 4), np.float32)], ids=str
)
def test_inputs_that_are_none(bench: AgentBench, model: Path, inputs: np.ndarray) -> None:
    with pytest.raises(BadInputError, match="inputs must be float32"):
        bench.predict(request_for(model), inputs)


def test_a_file_that_changes_while_it_is_sent(watched: AgentBench, requests: Requests, model: Path) -> None:
    def cut(request: httpx.Request) -> None:
        if request.method == "PUT":
            model.write_bytes(b"shorter")

    requests.before = cut
    with pytest.raises(BadInputError, match="changed while it was uploaded"):
        watched.measure(request_for(model))


def test_a_file_of_other_content_of_the_same_length(
    watched: AgentBench, requests: Requests, model: Path
) -> None:
    def change(request: httpx.Request) -> None:
        if request.method == "PUT":
            model.write_bytes(bytes(model.stat().st_size))

    requests.before = change
    with pytest.raises(RefusedError) as caught:
        watched.measure(request_for(model))
    assert caught.value.code == "wrong_hash"


def test_a_wrong_token_is_refused(bench: AgentBench, model: Path) -> None:
    address = dataclasses.replace(bench.address, token="x" * 43)
    with pytest.raises(RefusedError, match="edgeloop targets add") as caught:
        AgentBench(address).measure(request_for(model))
    assert caught.value.status == 401
    assert "x" * 43 not in str(caught.value)


def test_a_file_that_is_too_large_is_refused_in_the_agents_words(tmp_path: Path) -> None:
    large = tmp_path / "large.onnx"
    large.write_bytes(os.urandom(24 << 20))
    with running(tmp_path / "agent", "--artifact-limit", "1") as agent:
        with pytest.raises(RefusedError, match="artifact-limit") as caught:
            bench_of(agent).measure(request_for(large))
        assert caught.value.status == 413


def test_an_agent_that_answers_in_riddles(agent: LiveAgent, model: Path) -> None:
    riddle = httpx.MockTransport(lambda request: httpx.Response(200, json={"riddle": 1}))
    with pytest.raises(RunError, match="another version of edgeloop"):
        bench_of(agent, Means(transport=riddle)).measure(request_for(model))


def test_a_job_of_an_agent_that_is_killed_ends_as_restarted(tmp_path: Path, model: Path) -> None:
    runs = threading.Event()
    outcomes: list[Measurement | Failure] = []
    with pytest.raises(AssertionError, match="the agent ended"), running(tmp_path / "agent") as agent:
        bench = bench_of(agent, Means(tell=lambda text: "running" in text and runs.set()))
        request = request_for(model, timing=ENDLESS)
        asking = threading.Thread(target=lambda: outcomes.append(bench.measure(request)))
        asking.start()
        assert runs.wait(60)
        agent.process.send_signal(signal.SIGKILL)
        agent.process.wait()
    agent.log.unlink()
    port = agent.url.rpartition(":")[2]
    with serving(agent.state, agent.token, agent.fingerprint, "--port", port):
        asking.join(timeout=60)
        (found,) = outcomes
        assert isinstance(found, Failure)
        assert found.kind is FailureKind.AGENT_RESTARTED
        assert isinstance(bench.measure(request_for(model)), Measurement)


def test_an_agent_that_is_gone_is_unreachable(tmp_path: Path, model: Path) -> None:
    with running(tmp_path / "agent") as agent:
        bench = bench_of(agent, lost_seconds=0.5)
    found = bench.measure(request_for(model))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.UNREACHABLE
    assert agent.url in found.message


def test_an_expired_certificate_is_not_trusted(tmp_path: Path, model: Path) -> None:
    with running(tmp_path / "agent") as agent:
        pass
    agent.log.unlink()
    make_expired(agent.state)
    found = fingerprint(agent.state / "certificate.pem")
    with serving(agent.state, agent.token, found) as expired:
        with pytest.raises(UntrustedAgentError, match="has expired"):
            bench_of(expired).measure(request_for(model))
        assert "/v1/" not in expired.log.read_text()


def test_an_agent_with_a_new_certificate_is_told_nothing(tmp_path: Path, model: Path) -> None:
    with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        pinned = bench_of(one).address.certificate
        address = AgentAddress(two.url, one.token, pinned)
        with pytest.raises(UntrustedAgentError, match="does not show the certificate"):
            AgentBench(address).measure(request_for(model))
        assert "/v1/" not in two.log.read_text()
