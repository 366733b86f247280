"""compose.yaml as a whole: all services up, a job through the deployment, measured on the agent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from compose_stack import Stack, free_port, postgresql
from image_builder import Builder

pytestmark = [pytest.mark.containers, pytest.mark.slow]

JOB = """
model = "cnn"
data = "digits"
targets = ["agent-litert"]
trials = 1
"""


@pytest.fixture
def stack(
    builder: Builder, agent_image: str, controller_image: str, compose: dict[str, Any], tmp_path: Path
) -> Iterator[Stack]:
    """All services but the database, which Debian's PostgreSQL stands in for."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("psql") is None:
        pytest.skip("no database without postgresql (Debian package)")
    images = {"edgeloop": controller_image, "edgeloop-agent": agent_image}
    ports = {name: free_port() for name in ("database", "server", "agent")}
    stack = Stack(builder, compose["services"], images, tmp_path, ports)
    with postgresql(ports["database"]):
        try:
            yield stack
        finally:
            stack.down()


def test_a_job_is_measured_on_the_stacks_agent_and_all_comes_up_again(stack: Stack) -> None:
    stack.up(without={"database"})
    pages = f"http://127.0.0.1:{stack.ports['server']}"
    assert "<title>Prefect" in httpx.get(pages, trust_env=False).text
    settings = httpx.get(f"{pages}/ui-settings", trust_env=False).json()
    assert settings["api_url"] == f"{pages}/api"
    work = stack.folder / "volumes" / "worker" / "work"
    assert work.stat().st_uid == 10001
    (work / "job.toml").write_text(JOB)
    words = ["prefect", "deployment", "run", "compress/on-demand", "-p", "job=job.toml", "--watch"]
    done = stack.run("worker", *words)
    assert done.returncode == 0, done.stdout + done.stderr + stack.log("worker").read_text()
    (result,) = work.glob("runs/*/result.json")
    (measured,) = json.loads(result.read_text())["targets"].items()
    assert measured[0] == "agent-litert"
    where = measured[1]["float"]["conditions"]["device"]["hostname"]
    assert where == stack.run("agent", "hostname").stdout.strip()
    assert where != stack.run("worker", "hostname").stdout.strip()
    store = json.loads(stack.run("worker", "edgeloop", "store", "status", "--json").stdout)
    assert store["store"].startswith("postgresql") and store["standing"] == "current"
    assert sum(store["rows"].values()) > 0
    assert stack.stop("worker") == 0
    assert stack.stop("agent") == 0
    stack.down()

    pairing = (stack.folder / "volumes" / "agent" / "pairing").read_text()
    stack.up(without={"database"})
    assert (stack.folder / "volumes" / "agent" / "pairing").read_text() == pairing
    checked = stack.run("worker", "edgeloop", "targets", "check", "agent")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert result.is_file()
