"""The agent's image, built from the Dockerfile and run by the commands of compose.yaml."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from bench_suite import BY_FILE, request_of
from image_builder import ISOLATED, Builder, Container
from live_agent import launched

from device_bench.client import AgentBench
from device_bench.connection import AgentAddress
from device_bench.protocol import Measurement
from device_bench.wire import Pairing

pytestmark = [pytest.mark.containers, pytest.mark.slow]

USER = 10001
LIST = "import importlib.metadata as m, json; print(json.dumps([d.name.lower() for d in m.distributions()]))"
# Where a container may write although its image is read-only: its volume, and file systems of their own.
WRITABLE = ("/home/edgeloop/", "/tmp/", "/proc/", "/dev/", "/sys/", "/run/")


def pair(container: Container, compose: dict[str, Any]) -> Pairing:
    """What `agent-keys` of compose.yaml leaves in the volume."""
    service = compose["services"]["agent-keys"]
    done = container.run(*service["entrypoint"], *service["command"])
    assert done.returncode == 0, done.stderr
    file = container.home / "pairing"
    assert file.stat().st_mode & 0o777 == 0o600 and file.stat().st_uid == USER
    return Pairing.from_line(file.read_text())


def serve_words(container: Container, compose: dict[str, Any]) -> list[str]:
    """`agent` of compose.yaml on a free port of loopback."""
    command = compose["services"]["agent"]["command"]
    return container.words(*container.entrypoint, *command, "--host", "127.0.0.1", "--port", "0")


def state_of(container: Container) -> Path:
    return container.home / ".local/state/device-bench"


def test_the_image_is_lean_and_nobodys_root(
    builder: Builder, agent_image: str, agent_container: Container
) -> None:
    config = builder.config(agent_image)
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["device-bench"]
    assert list(config["ExposedPorts"]) == ["8443/tcp"]
    done = agent_container.run("python", "-c", LIST)
    assert done.returncode == 0, done.stderr
    names = set(json.loads(done.stdout))
    assert {"edgeloop", "onnxruntime", "ai-edge-litert", "cryptography"} <= names
    assert not names & {"torch", "prefect", "onnx", "jax", "pip", "setuptools"}
    assert agent_container.run("id", "-u").stdout.strip() == str(USER)
    assert agent_container.run("touch", "/opt/edgeloop/x").returncode != 0


def test_an_agent_in_a_container_measures_both_formats(
    agent_container: Container, compose: dict[str, Any]
) -> None:
    pairing = pair(agent_container, compose)
    words = serve_words(agent_container, compose)
    with launched(words, ISOLATED, state_of(agent_container), pairing) as agent:
        certificate = (state_of(agent_container) / "certificate.pem").read_text()
        bench = AgentBench(AgentAddress(agent.url, pairing.token, certificate))
        for file in ("int8.onnx", "int8.tflite"):
            measured = bench.measure(request_of(BY_FILE[file].path))
            assert isinstance(measured, Measurement), measured
            assert measured.latency.p50_ms > 0 and not measured.conditions.device.emulated
        healthy(agent_container, compose, agent.url)
    written = agent_container.run("find", "/", "-xdev", "-user", str(USER), "-type", "f").stdout.split()
    assert [path for path in written if not path.startswith(WRITABLE)] == []


def healthy(container: Container, compose: dict[str, Any], url: str) -> None:
    """The health check of compose.yaml holds where the agent serves, and nowhere else."""
    kind, *words = compose["services"]["agent"]["healthcheck"]["test"]
    assert kind == "CMD"
    port = url.rpartition(":")[2]
    here = [word.replace("8443", port) for word in words]
    assert here != words
    done = container.run(*here)
    assert done.returncode == 0, done.stderr
    elsewhere = [word.replace("8443", "9") for word in words]  # discard: nothing listens there
    assert container.run(*elsewhere).returncode != 0


def test_keys_are_made_once(agent_container: Container, compose: dict[str, Any]) -> None:
    first = pair(agent_container, compose)
    certificate = (state_of(agent_container) / "certificate.pem").read_bytes()
    assert pair(agent_container, compose) == first
    assert (state_of(agent_container) / "certificate.pem").read_bytes() == certificate


def test_a_stop_ends_the_agent_in_order(agent_container: Container, compose: dict[str, Any]) -> None:
    """SIGTERM, as `docker stop` sends it to a container's first process."""
    pair(agent_container, compose)
    log = agent_container.home / "serve.log"
    with log.open("wb") as file:
        running = subprocess.Popen(
            serve_words(agent_container, compose), stdout=file, stderr=file, env=ISOLATED
        )
    try:
        deadline = time.monotonic() + 60
        while "serving on" not in log.read_text():
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        (agent,) = [
            child
            for child in psutil.Process(running.pid).children(recursive=True)
            if Path(child.exe()).name.startswith("python")
        ]
        assert agent.uids().real == USER
        agent.terminate()
        assert running.wait(timeout=60) == 0, log.read_text()
    finally:
        running.kill()
        running.wait()
