"""This machine, and an agent on loopback, are benches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench_suite import BenchSuite
from live_agent import running

from device_bench.bench import Bench, LocalBench
from device_bench.client import AgentBench
from device_bench.connection import AgentAddress


class TestLocalBench(BenchSuite):
    @pytest.fixture
    def bench(self) -> Bench:
        return LocalBench()


@pytest.fixture(scope="module")
def agent_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running(tmp_path_factory.mktemp("agent")) as agent:
        certificate = (agent.state / "certificate.pem").read_text()
        yield AgentBench(AgentAddress(agent.url, agent.token, certificate))


class TestAgentBench(BenchSuite):
    @pytest.fixture
    def bench(self, agent_bench: Bench) -> Bench:
        return agent_bench
