"""A standing server of a test's own: its folder, its Prefect home, and what is asked of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from flows.deployments.ending import outlive
from flows.deployments.standing import Office

PATIENCE_SECONDS = 240.0
# The compress deployment with short measurements, for `prefect deploy` in a desk's folder.
QUICK_FLOW = """
import sys

sys.path.insert(0, {folder!r})
from quick_cli import shorten

shorten()
from flows.deployments.compress import compress as compress
"""
QUICK_YAML = """
name: quick
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: {place}
deployments:
  - name: quick
    entrypoint: quick.py:compress
    parameters: {{job: {job}}}
    work_pool:
      name: edgeloop
      job_variables: {{command: python -m flows.deployments.process, working_dir: {place}}}
    schedules: {schedules}
"""


@dataclass
class Desk:
    """One standing server and the folder that flows run in.

    Args:
        place: where job files, prefect.yaml and runs lie.
        environment: of every command.
    """

    place: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def office(self) -> Office:
        return Office(Path(self.environment["PREFECT_HOME"]))

    @property
    def screen(self) -> str:
        return (self.place / "screen.txt").read_text()

    def up(self, *options: str) -> None:
        """Start `edgeloop server up`, and wait until it stands."""
        with (self.place / "screen.txt").open("wb") as screen:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "server", "up", "--port", "0", *options],
                cwd=self.place,
                env=self.environment,
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )
        self.wait(lambda: "Ctrl-C ends all of it" in self.screen)

    def down(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_SECONDS)

    def run(self, *command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A command of another terminal, `edgeloop …` or `prefect …`, to its end."""
        module = {"edgeloop": "flows.cli", "prefect": "prefect"}[str(command[0])]
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, command[1:])],
            cwd=cwd or self.place,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def api(self, route: str, body: dict[str, Any] | None = None) -> Any:
        """What the server answers to POST `route`."""
        record = self.office.record()
        assert record is not None
        reply = httpx.post(f"{record.api_url}{route}", json=body or {}, trust_env=False, timeout=60.0)
        reply.raise_for_status()
        return reply.json()

    def write_quick(self, job: dict[str, Any], schedules: str = "[]") -> None:
        """A prefect.yaml with one deployment, `compress/quick`."""
        folder = str(Path(__file__).parent.parent)
        (self.place / "quick.py").write_text(QUICK_FLOW.format(folder=folder))
        yaml = QUICK_YAML.format(place=self.place, job=json.dumps(job), schedules=schedules)
        (self.place / "prefect.yaml").write_text(yaml)

    def wait(self, ready: Callable[[], object]) -> None:
        """Wait until it is so, for as long as the server stands."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            assert time.monotonic() < deadline, self.everything()
            assert self.process is not None and self.process.poll() is None, self.everything()
            time.sleep(0.1)

    def flow_runs(self) -> list[dict[str, Any]]:
        """All flow runs that have begun, oldest first."""
        types = {"any_": ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}
        body = {"flow_runs": {"state": {"type": types}}, "sort": "START_TIME_ASC"}
        found: list[dict[str, Any]] = self.api("/flow_runs/filter", body)
        return found

    def everything(self) -> str:
        """All that was said, for a failed test."""
        logs = [self.place / "screen.txt", *sorted(self.office.folder.glob("*.log"))]
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs if log.exists())

    def close(self) -> None:
        """End all that is left, without asking."""
        if self.process is None or self.process.poll() is not None:
            return
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        for process in outlive(below, seconds=30):
            process.kill()


@contextmanager
def desk_in(place: Path) -> Iterator[Desk]:
    """A desk in this folder; what stands at the end of the block is ended."""
    environment = os.environ | {
        "PREFECT_HOME": str(place / "prefect"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")])),
    }
    found = Desk(place, environment)
    try:
        yield found
    finally:
        found.close()
