"""A run whose candidates a Dask cluster of several processes makes; one of them dies in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.experience import TrialLog
from pipeline.result import RunResult

pytest.importorskip("prefect_dask", reason="needs the extra dask")

DASK = Path(sys.executable).parent / "dask"
PATIENCE_SECONDS = 300.0
TRIALS = 5

Command = Callable[..., subprocess.CompletedProcess[str]]


class DaskCluster:
    """A scheduler and workers of one thread each, every one a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scheduler, log = self._start("scheduler", "--port", "0")
        self.address = self._told(self._scheduler, log, r"Scheduler at:\s+(tcp://\S+)")
        self.workers: list[subprocess.Popen[bytes]] = []

    def add_worker(self) -> subprocess.Popen[bytes]:
        """Start one more, and wait until the cluster knows it."""
        name = f"worker-{len(self.workers)}"
        process, log = self._start(name, self.address, "--nthreads", "1", "--no-nanny", "--name", name)
        self.workers.append(process)
        self._told(process, log, r"Registered to:\s+(tcp://\S+)")
        return process

    def close(self) -> None:
        """End every process."""
        for process in [*self.workers, self._scheduler]:
            process.kill()
            process.wait()

    def _start(self, name: str, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = self._folder / f"{name}.log"
        words = [str(DASK), name.split("-")[0], *options, "--host", "127.0.0.1", "--no-dashboard"]
        with log.open("wb") as file:
            return subprocess.Popen(words, stdout=file, stderr=file, cwd=self._folder), log

    @staticmethod
    def _told(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = re.search(pattern, log.read_text())
            if found:
                return found[1]
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        raise AssertionError(log.read_text())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    found = DaskCluster(tmp_path)
    yield found
    found.close()


def compress(runs: Path, weights: Path, *options: object) -> list[object]:
    """A small job on one target."""
    return [
        *("compress", "--model", "cnn", "--data", "digits", "--weights", weights, "--out", runs),
        *("--target", "local-onnxruntime", "--policy", "knapsack", "--trials", TRIALS),
        *("--recoveries", 0, "--max-drop", 100, *options),
    ]


def probes(run: Path) -> dict[str, float]:
    """Accuracy by change."""
    lines = (run / "probes.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {json.dumps(one["change"], sort_keys=True): one["effect"]["accuracy"] for one in records}


def test_a_cluster_finds_what_one_process_finds_though_a_worker_dies(
    cluster: DaskCluster,
    tmp_path: Path,
    edgeloop: Command,
    start: Callable[..., subprocess.Popen[str]],
    weights: Callable[[str], Path],
    only_run: Callable[[Path], Path],
) -> None:
    alone = edgeloop(*compress(tmp_path / "alone", weights("cnn")), cwd=tmp_path)
    assert alone.returncode in (0, 1), alone.stderr
    for _ in range(3):
        cluster.add_worker()
    options = ("--runner", "dask", "--scheduler", cluster.address)
    process = start(*compress(tmp_path / "spread", weights("cnn"), *options), cwd=tmp_path)
    try:
        victim = psutil.Process(cluster.workers[0].pid)
        before = sum(victim.cpu_times()[:2])
        deadline = time.monotonic() + PATIENCE_SECONDS
        # At work: it has computed for longer than it takes to be greeted.
        while sum(victim.cpu_times()[:2]) < before + 2.0:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.kill(victim.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()

    assert process.returncode in (0, 1), out + err
    run, other = only_run(tmp_path / "spread"), only_run(tmp_path / "alone")
    assert probes(run) == probes(other)
    trials = TrialLog(run / "trials.jsonl").read()
    assert [trial.number for trial in trials] == list(range(1, TRIALS + 1))
    assert len({trial.plan.plan_id for trial in trials}) == TRIALS
    assert all(trial.failure is None and trial.latency_ms["local-onnxruntime"] > 0 for trial in trials)
    result = RunResult.model_validate_json((run / "result.json").read_text())
    assert result.trials == TRIALS
    assert "made on the cluster" in out


@pytest.mark.slow
def test_a_run_goes_on_without_the_cluster_it_began_on(
    cluster: DaskCluster,
    tmp_path: Path,
    edgeloop: Command,
    weights: Callable[[str], Path],
    only_run: Callable[[Path], Path],
) -> None:
    runs, options = tmp_path / "runs", ("--runner", "dask", "--scheduler", cluster.address)
    stopped = edgeloop(*compress(runs, weights("cnn"), *options), cwd=tmp_path)
    assert stopped.returncode == 3
    assert f"the Dask cluster at {cluster.address} has no workers" in stopped.stderr
    run = only_run(runs)
    assert f"--resume {run}" in stopped.stderr
    (first,) = TrialLog(run / "trials.jsonl").read()

    done = edgeloop("compress", "--resume", run, "--runner", "local", cwd=tmp_path)

    assert done.returncode in (0, 1), done.stderr
    trials = TrialLog(run / "trials.jsonl").read()
    assert trials[0] == first
    assert [trial.number for trial in trials] == list(range(1, TRIALS + 1))


TOGETHER = "runner dask and scheduler tcp://HOST:PORT are given together"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--runner", "dask"), TOGETHER),
        (("--scheduler", "tcp://127.0.0.1:1"), TOGETHER),
        (("--runner", "ray", "--scheduler", "tcp://127.0.0.1:1"), "runner must satisfy"),
    ],
)
def test_options_that_do_not_fit(
    options: tuple[str, ...], told: str, tmp_path: Path, edgeloop: Command, weights: Callable[[str], Path]
) -> None:
    done = edgeloop(*compress(tmp_path / "runs", weights("cnn"), *options), cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "runs").exists()
