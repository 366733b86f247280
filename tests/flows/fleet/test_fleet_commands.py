"""A fleet of two boards on loopback: added, watched, gone, worse, accepted."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from live_agent import LiveAgent, end
from restartable_board import Board

from device_bench.known_models import FOLDER
from device_bench.protocol import RuntimeName
from pipeline.fleet.history import FleetMeasurement, Watched
from pipeline.fleet.history_store import HistoryStore
from pipeline.fleet.regression import State
from pipeline.fleet.release import Release
from pipeline.fleet.rounds import FleetRound
from pipeline.fleet.shelf import Shelf

Command = Callable[..., subprocess.CompletedProcess[str]]

NET = FOLDER / "int8.tflite"
NAMES = ("board-a", "board-b")
DEPLOYED = """
import json, sys
from flows.compression.start import prepare_prefect
server = prepare_prefect()
server.wait_ready()
from flows.deployments.fleet_benchmark import fleet_benchmark
from prefect import get_client
state = fleet_benchmark(devices=["board-b"], round_id=sys.argv[1], return_state=True)
with get_client(sync_client=True) as client:
    wanted = {"artifacts": {"key": {"any_": ["fleet-benchmark"]}}}
    found = client.request("POST", "/artifacts/latest/filter", json=wanted).json()
    limits = [limit.name for limit in client.read_global_concurrency_limits()]
told = {"type": state.type.value, "message": state.message, "text": found[0]["data"], "limits": limits}
print(json.dumps(told))
"""


class Fleet:
    """Two boards of one class, one released file, and the command in a folder of its own."""

    def __init__(self, folder: Path, edgeloop: Command) -> None:
        self.folder = folder
        self._edgeloop = edgeloop
        self.boards = {name: Board(folder / name) for name in NAMES}
        self.agents: dict[str, LiveAgent] = {name: board.start() for name, board in self.boards.items()}
        content = NET.read_bytes()
        self.release = Release(
            name="net",
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
            file_name=NET.name,
            run_id="by-hand",
            plan_id="none",
            target="loop-litert",
            runtime=RuntimeName.LITERT,
            metric="accuracy",
            score=90.0,
            p50_ms=1.0,
            device_class="loop",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )

    def watched(self, device: str) -> Watched:
        return Watched(release="net", sha256=self.release.sha256, device=device, runtime=RuntimeName.LITERT)

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self._edgeloop("fleet", *arguments, cwd=self.folder)

    def bench(self, *options: object) -> tuple[int, FleetRound]:
        done = self.run("bench", *options, "--json")
        assert done.stdout, done.stderr
        return done.returncode, FleetRound.model_validate_json(done.stdout)

    def store(self) -> HistoryStore:
        return HistoryStore(self.folder / "cache" / "experience.sqlite")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, edgeloop: Command) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGELOOP_CACHE", str(folder / "cache"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        found = Fleet(folder, edgeloop)
        try:
            for name, agent in found.agents.items():
                pair = ("--pair", found.boards[name].line)
                added = found.run("add", name, agent.url, "--class", "loop", *pair)
                assert added.returncode == 0, added.stderr
                assert f"{name} is of class loop" in added.stdout
            Shelf(str(folder / "cache" / "artifacts")).put(found.release, NET)
            yield found
        finally:
            for agent in found.agents.values():
                end(agent)


def test_every_device_and_whether_it_answers(fleet: Fleet) -> None:
    done = fleet.run("status", "--json")
    assert done.returncode == 0, done.stderr
    devices = {one["device"]: one for one in json.loads(done.stdout)}
    assert list(devices) == ["local", *NAMES]
    for name in NAMES:
        assert devices[name]["device_class"] == "loop"
        assert devices[name]["problem"] is None
        assert "litert" in devices[name]["runtimes"]


def test_a_round_visits_each_board_once_however_often_it_is_begun(fleet: Fleet) -> None:
    code, first = fleet.bench("--round", "first")
    assert code == 0
    measured = {one.device: one.measured for one in first.devices}
    # This machine is not of the class that the file was released for.
    assert measured == {"local": 0, "board-a": 1, "board-b": 1}
    assert {finding.state for finding in first.findings} == {State.TOO_FEW}
    with fleet.store() as history:
        before = {name: history.visits(fleet.watched(name)) for name in NAMES}
    assert all(len(visits) == 1 for visits in before.values())

    code, again = fleet.bench("--round", "first")
    assert code == 0
    assert {one.device: (one.measured, one.known) for one in again.devices} == {
        "local": (0, 0),
        "board-a": (0, 1),
        "board-b": (0, 1),
    }
    with fleet.store() as history:
        assert {name: history.visits(fleet.watched(name)) for name in NAMES} == before


@pytest.mark.slow
def test_a_board_that_is_off_is_skipped_and_its_work_goes_to_its_sibling(fleet: Fleet) -> None:
    end(fleet.agents["board-a"])
    try:
        code, found = fleet.bench("--round", "without-a")
        rounds = {one.device: one for one in found.devices}
        assert code == 0
        assert rounds["board-a"].measured == 0
        assert rounds["board-a"].skipped is not None
        assert "device-bench serve" in rounds["board-a"].skipped
        assert (rounds["board-b"].measured, rounds["board-b"].skipped) == (1, None)

        status = fleet.run("status")
        assert status.returncode == 1
        assert "Connection refused" in status.stdout

        # A target of the class is whichever of its boards answers.
        done = fleet._edgeloop("bench", NET, "--target", "loop-litert", "--json", cwd=fleet.folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
    finally:
        fleet.agents["board-a"] = fleet.boards["board-a"].start()


def planted(fleet: Fleet, device: str, factor: float) -> None:
    """Give a board six earlier visits that were faster by a factor than the one it had."""
    with fleet.store() as history:
        real = history.visits(fleet.watched(device))[0]
        for days in range(1, 7):
            beside = real.beside_reference.model_copy(
                update={"speedup": real.cost / factor * (1 + 0.002 * days)}
            )
            earlier = {
                "round_id": f"earlier-{days}",
                "measured_at": real.measured_at - timedelta(days=days),
                "beside_reference": beside,
            }
            history.add(FleetMeasurement.model_validate(real.model_copy(update=earlier).model_dump()))


def test_what_got_worse_is_told_until_it_is_accepted(fleet: Fleet) -> None:
    # Eight times as slow: visits this short, on a machine that does other things, have been off by two.
    planted(fleet, "board-b", 8.0)
    fleet.bench("--device", "board-b", "--round", "second")
    code, found = fleet.bench("--device", "board-b", "--round", "third")
    assert code == 1
    (worse,) = found.regressions
    assert (worse.watched.device, worse.watched.release) == ("board-b", "net")
    assert 2.0 < worse.ratio < 32.0
    with fleet.store() as history:
        assert worse.since == history.visits(fleet.watched("board-b"))[6].measured_at

    words = [sys.executable, "-c", DEPLOYED, "deployed"]
    done = subprocess.run(words, cwd=fleet.folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["type"] == "FAILED"
    assert told["message"].startswith("1 figure got worse: net on board-b: latency +")
    assert "## net on board-b: latency is worse" in told["text"]
    assert f"{worse.since:%Y-%m-%d %H:%M} UTC" in told["text"]
    assert "edgeloop fleet accept net board-b" in told["text"]
    assert "device-board-b" in told["limits"]

    accepted = fleet.run("accept", "net", "board-b", "--note", "a safer kernel")
    assert accepted.returncode == 0, accepted.stderr
    code, found = fleet.bench("--device", "board-b")
    assert code == 0
    assert found.regressions == ()


def test_names_that_are_not_known(fleet: Fleet) -> None:
    done = fleet.run("bench", "--device", "board-c")
    assert done.returncode == 2
    assert "board-c" in done.stderr and "board-a" in done.stderr
    done = fleet.run("accept", "other", "board-b")
    assert done.returncode == 2
    assert "net" in done.stderr
    done = fleet.run("add", "loop", "https://127.0.0.1:1", "--pair", "x")
    assert done.returncode == 2


def test_nothing_released(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_ARTIFACTS", str(tmp_path / "empty"))
    done = fleet.run("bench")
    assert done.returncode == 2
    assert "nothing is released" in done.stderr and "edgeloop release RUN" in done.stderr
