"""kill -9 of a flow run's process, of the worker, of the server, of the command: the flow run goes on."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from standing_desk import Desk

from flows.deployments.ending import outlive
from flows.deployments.watch import LOOK_SECONDS
from pipeline.experience import TrialLog

pytestmark = pytest.mark.slow

TRIALS = 24
JOB = f"""
model = "cnn"
target = "local-onnxruntime"
policy = "random"
trials = {TRIALS}
recoveries = 0
max_drop = 100
"""


def trials(run: Path) -> int:
    """How many trials the run has finished."""
    log = run / "trials.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def child(desk: Desk, module: str) -> int:
    """The process of `server up` that runs the module."""
    assert desk.process is not None
    found = psutil.Process(desk.process.pid).children()
    (pid,) = [process.pid for process in found if module in process.cmdline()]
    return pid


def flow_process(desk: Desk) -> int:
    """The process of the one flow run, once it has signed in."""
    desk.wait(lambda: any(alive for _, alive in desk.office.ledger.entries()))
    (pid,) = [entry.pid for entry, alive in desk.office.ledger.entries() if alive]
    return pid


def test_a_flow_run_outlives_whatever_is_killed(desk: Desk) -> None:
    desk.up()
    desk.write_quick({})
    (desk.place / "job.toml").write_text(JOB)
    assert desk.run("prefect", "deploy", "--all").returncode == 0
    assert desk.run("prefect", "deployment", "run", "compress/quick", "-p", "job=job.toml").returncode == 0
    desk.wait(lambda: list((desk.place / "runs").glob("*/job.json")))
    (run,) = (desk.place / "runs").iterdir()

    desk.wait(lambda: trials(run) >= 2)
    os.kill(flow_process(desk), signal.SIGKILL)
    desk.wait(lambda: "its process ended before it did: it goes on where it was" in desk.screen)
    desk.wait(lambda: trials(run) >= 6)
    os.kill(child(desk, "flows.deployments.worker"), signal.SIGKILL)
    desk.wait(lambda: "the worker ended (killed by SIGKILL); it is started again" in desk.screen)
    desk.wait(lambda: trials(run) >= 10)
    server = child(desk, "flows.server")
    # Stopped for some looks of the command's own, so that one of its calls is under way when the server dies.
    os.kill(server, signal.SIGSTOP)
    time.sleep(3 * LOOK_SECONDS)
    os.kill(server, signal.SIGKILL)
    desk.wait(lambda: "the server ended (killed by SIGKILL); it is started again" in desk.screen)
    desk.wait(lambda: trials(run) >= 14)
    assert desk.process is not None
    below = psutil.Process(desk.process.pid).children(recursive=True)
    desk.process.kill()
    desk.process.wait()
    assert outlive(below, seconds=120) == [], "what the command started must end with it"
    at_kill = trials(run)
    assert at_kill < TRIALS, "the job is too short for this test"

    desk.up()
    desk.wait(lambda: (run / "result.json").exists())
    desk.wait(lambda: [one["state_type"] for one in desk.flow_runs()] == ["COMPLETED"])
    assert trials(run) == TRIALS
    assert Counter(trial.number for trial in TrialLog(run / "trials.jsonl").read()) == dict.fromkeys(
        range(1, TRIALS + 1), 1
    )
    assert list((desk.place / "runs").iterdir()) == [run]
    desk.wait(lambda: desk.office.ledger.entries() == [])
    assert desk.down() == 0


def test_a_killed_command_leaves_nothing_that_misleads_prefect(desk: Desk) -> None:
    desk.up()
    assert desk.process is not None
    desk.process.kill()
    desk.process.wait()
    profiles = desk.place / "prefect" / "profiles.toml"
    assert 'active = "edgeloop"' in profiles.read_text()
    done = desk.run(
        *("edgeloop", "compress", "--model", "mlp", "--target", "local-onnxruntime", "--policy", "random"),
        *("--trials", 1, "--recoveries", 0, "--max-drop", 100, "--out", "alone"),
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert 'active = "ephemeral"' in profiles.read_text()
