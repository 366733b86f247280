"""kill -9 at any moment: start again, and nothing measured is measured twice, and nothing is lost.

Raw samples are unique to the nanosecond, so a measurement that was made anew could not have the bytes that
were there before the kill.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from live_agent import end
from restartable_board import Board

from flows.deployments.ending import outlive
from pipeline.experience import ExperienceStore, TrialLog
from pipeline.result import RunResult

pytestmark = pytest.mark.slow

TRIALS = 24
KILLS = {"flow": 14, "agent": 8}
# What a run does in so many seconds after its start is anything from loading libraries to its third stage.
MOMENT_SECONDS = (2.0, 16.0)
PATIENCE_SECONDS = 600.0
BOARD = "board-onnxruntime"

Start = Callable[..., subprocess.Popen[str]]


class Books:
    """What a run had on the disk at the moments of its kills."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._measured: dict[str, bytes] = {}
        self._lines: dict[str, list[bytes]] = {"trials.jsonl": [], "probes.jsonl": []}

    def keep(self) -> int:
        """Write down what is there now, which all that was there before must be in; how many records."""
        now = {path.name: path.read_bytes() for path in (self.run / "measured").glob("*.json")}
        for name, content in self._measured.items():
            assert now.get(name) == content, f"{name} was measured again, or lost"
        self._measured = now
        for name, before in self._lines.items():
            lines = whole_lines(self.run / name)
            assert lines[: len(before)] == before, f"{name} lost what was written there"
            self._lines[name] = lines
        return len(now) + sum(len(lines) for lines in self._lines.values())


def whole_lines(path: Path) -> list[bytes]:
    """The lines that were written to their end."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1].splitlines()


class Victims:
    """A run and the board it measures on; either can be killed and started again.

    Args:
        begin: starts `edgeloop` with these arguments.
    """

    def __init__(self, board: Board, begin: Callable[..., subprocess.Popen[str]]) -> None:
        self.board = board
        self._begin = begin
        self.agent = board.start()
        self.flow: subprocess.Popen[str] | None = None

    def go_on(self, *arguments: object) -> subprocess.Popen[str]:
        """Start the run, or go on with one that has ended."""
        self._read_to_end()
        self.flow = self._begin(*arguments)
        return self.flow

    def kill_flow(self) -> None:
        """End the run's process at once; what it started ends with it."""
        assert self.flow is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.flow.pid).children(recursive=True)
            self.flow.kill()
            self.flow.communicate()
            assert outlive(children, seconds=60) == [], "what the run started must end with it"

    def kill_agent(self) -> None:
        """End the agent's process at once, and start another."""
        self.agent.process.kill()
        self.agent.process.wait()
        self.agent = self.board.start()

    def end(self) -> None:
        """Leave no process behind."""
        if self.flow is not None and self.flow.poll() is None:
            os.killpg(self.flow.pid, signal.SIGKILL)
        self._read_to_end()
        end(self.agent)

    def _read_to_end(self) -> None:
        """Take what an ended run has printed, which closes its pipes.

        A run can end by itself while the agent is killed, when nobody is waiting for it.

        Raises:
            AssertionError: it ended otherwise than by a result, or by a kill.
        """
        if self.flow is None or self.flow.stdout is None or self.flow.stdout.closed:
            return
        out, err = self.flow.communicate(timeout=PATIENCE_SECONDS)
        assert self.flow.returncode in (0, 1, -signal.SIGKILL), out + err


@pytest.fixture
def victims(tmp_path: Path, start: Start) -> Iterator[Victims]:
    board = Board(tmp_path / "agent")
    found = Victims(board, lambda *arguments: start(*arguments, cwd=tmp_path))
    try:
        yield found
    finally:
        found.end()


def wait(process: subprocess.Popen[str], seconds: float) -> None:
    """Let so much time pass, or less if the process ends within it."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)


def test_kill_anything_at_any_moment(
    victims: Victims,
    tmp_path: Path,
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    only_run: Callable[[Path], Path],
    weights: Callable[[str], Path],
) -> None:
    runs = tmp_path / "runs"
    pair = ("--pair", victims.board.line)
    added = edgeloop("targets", "add", "board", victims.agent.url, *pair, cwd=tmp_path)
    assert added.returncode == 0, added.stderr
    flow = victims.go_on(
        *("compress", "--model", "cnn", "--data", "digits", "--weights", weights("cnn"), "--out", runs),
        *("--target", "local-onnxruntime", "--target", BOARD, "--policy", "knapsack", "--trials", TRIALS),
        *("--recoveries", 1, "--recovery-epochs", 1, "--max-drop", 100),
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not runs.exists() and time.monotonic() < deadline:
        assert flow.poll() is None, flow.communicate()
        time.sleep(0.02)
    run = only_run(runs)
    books, random_ = Books(run), random.Random(0)
    order = [victim for victim, times in KILLS.items() for _ in range(times)]
    random_.shuffle(order)
    seen = []

    for victim in order:
        wait(flow, random_.uniform(*MOMENT_SECONDS))
        if victim == "agent":
            victims.kill_agent()
        else:
            victims.kill_flow()
        seen.append(books.keep())
        if flow.poll() is not None:
            # It goes on from its books; a run that had ended looks through them once more.
            flow = victims.go_on("compress", "--resume", run)
    out, err = flow.communicate(timeout=PATIENCE_SECONDS)
    assert flow.returncode in (0, 1), out + err
    books.keep()

    assert seen == sorted(seen)
    assert len(set(seen)) > 3, f"the kills came at too few stages: {seen}"
    records = TrialLog(run / "trials.jsonl").read()
    latest = {trial.number: trial for trial in records}
    assert sorted(latest) == list(range(1, TRIALS + 1))
    assert all(trial.failure is None and BOARD in trial.latency_ms for trial in latest.values())
    plans = Counter(trial.plan.plan_id for trial in latest.values())
    assert len(plans) == TRIALS
    result = RunResult.model_validate_json((run / "result.json").read_text())
    assert result.lost == {}
    assert result.trials == TRIALS
    with ExperienceStore(Path(os.environ["EDGELOOP_CACHE"]) / "experience.sqlite") as store:
        assert [trial.number for trial in store.trials(run_id=run.name)] == list(range(1, TRIALS + 1))
    assert list(runs.iterdir()) == [run]
