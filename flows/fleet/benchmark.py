"""The fleet benchmark: every released file on every device it fits, judged by its own history.

A round that was killed goes on where it was: what it has measured is in the store under its round's name.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from device_bench.bench import Bench, LocalBench
from device_bench.errors import EdgeloopError
from device_bench.protocol import Failure, FailureKind
from flows.fleet.wording import finding_rows, markdown_of
from pipeline.device_slots import TurnTaking
from pipeline.fleet.history_store import HistoryStore
from pipeline.fleet.rounds import DeviceRound, Due, FleetRound, Station, due, findings_of
from pipeline.fleet.shelf import Shelf
from pipeline.fleet.visit import visit
from pipeline.progress import reporter
from pipeline.target_bench import agent_bench
from pipeline.target_book import LOCAL

# A board that is switched off is found out once a round.
LOST_SECONDS = 20.0
# Boards work by themselves; this machine only uploads and waits.
AT_ONCE = 32


@dataclass(frozen=True)
class FleetOrder:
    """What a round is made of.

    Args:
        stations: the devices to visit.
        shelf: URL of the released files.
        store: where the history is.
        round_id: the same one goes on with a round; what it has measured is not measured again.
    """

    stations: tuple[Station, ...]
    shelf: str
    store: str
    round_id: str


@task(name="reach", task_run_name="reach {station.name}", cache_policy=NO_CACHE, persist_result=False)
def reach(station: Station) -> str | None:
    """Why a device cannot be visited now, or None."""
    if station.where == LOCAL:
        return None
    try:
        info = agent_bench(station.where, lost_seconds=LOST_SECONDS).reach().info
    except EdgeloopError as error:
        return str(error)
    return "it is emulated: its times say nothing about a real one" if info.device.emulated else None


@task(
    name="visit",
    task_run_name="{one.release.name} on {one.station.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def visit_one(one: Due, order: FleetOrder) -> Failure | None:
    """Measure one released file on one device and keep what was found."""
    with HistoryStore(order.store) as history:
        path = Shelf(order.shelf).fetch(one.release)
        made = visit(bench_of(one.station), path, one.watched, order.round_id, lambda: datetime.now(UTC))
        if isinstance(made, Failure):
            return made
        history.add(made)
    cost = f"{made.measurement.latency.p50_ms:.3f} ms, {made.cost:.2f} times the reference"
    get_run_logger().info("%s on %s: %s", one.release.name, one.station.name, cost)
    return None


@flow(name="fleet-benchmark", flow_run_name="fleet-benchmark {order.round_id}", validate_parameters=False)
def fleet_benchmark_flow(order: FleetOrder) -> FleetRound:
    """One round over the fleet; devices that cannot be reached are skipped and told."""
    started = datetime.now(UTC)
    watch = reporter()
    releases = Shelf(order.shelf).releases()
    plan = {station: due(releases, station) for station in order.stations}
    progress = _Progress(sum(map(len, plan.values())))
    watch.stage(f"visit {len(plan)} devices, {progress.total} files", max(1, progress.total))
    rounds = _visit_all(plan, order, progress)
    for one in rounds:
        if one.skipped is not None:
            watch.note(f"{one.device} is skipped: {one.skipped}")
        for name, why in one.failed.items():
            watch.note(f"{name} could not be measured on {one.device}: {why}")
    watch.stage("judge", 1)
    with HistoryStore(order.store) as history:
        visited = {one.watched for one in history.of_round(order.round_id)}
        watched = [one.watched for visits in plan.values() for one in visits if one.watched in visited]
        findings = findings_of(history, watched)
    result = FleetRound(round_id=order.round_id, started_at=started, devices=tuple(rounds), findings=findings)
    publish(result)
    return result


class _Progress:
    """Counts visits of all threads."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._done = 0
        self._lock = Lock()
        self._watch = reporter()

    def begin(self, one: Due) -> None:
        """A visit begins."""
        with self._lock:
            self._watch.advance(self._done, f"{one.release.name} on {one.station.name}")

    def add(self, visits: int) -> None:
        """So many were made, or need not be."""
        with self._lock:
            self._done += visits


def _visit_all(plan: dict[Station, list[Due]], order: FleetOrder, progress: _Progress) -> list[DeviceRound]:
    """This machine first and alone, since it is a device itself; then the boards side by side."""
    here = [station for station in plan if station.where == LOCAL]
    boards = [station for station in plan if station.where != LOCAL]
    rounds = [_visit_device(station, plan[station], order, progress) for station in here]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # Each thread sees the flow's context: Prefect's run, the reporter, who holds devices.
        waiting = [
            pool.submit(copy_context().run, _visit_device, station, plan[station], order, progress)
            for station in boards
        ]
        return rounds + [one.result() for one in waiting]


def _visit_device(station: Station, visits: list[Due], order: FleetOrder, progress: _Progress) -> DeviceRound:
    with HistoryStore(order.store) as history:
        known = {one.watched for one in history.of_round(order.round_id)}
    left = [one for one in visits if one.watched not in known]
    progress.add(len(visits) - len(left))
    skipped = reach(station) if left else None
    if skipped is not None:
        return DeviceRound(device=station.name, known=len(visits) - len(left), skipped=skipped)
    measured, failed = 0, {}
    for one in left:
        progress.begin(one)
        failure = visit_one(one, order)
        progress.add(1)
        if failure is None:
            measured += 1
        elif failure.kind is FailureKind.UNREACHABLE:
            skipped = failure.message
            break
        else:
            failed[one.release.name] = f"{failure.kind}: {failure.message}"
    return DeviceRound(
        device=station.name,
        measured=measured,
        known=len(visits) - len(left),
        skipped=skipped,
        failed=failed,
    )


def bench_of(station: Station) -> Bench:
    """Who measures on a device, one at a time."""
    if station.where == LOCAL:
        return TurnTaking(LocalBench(), LOCAL)
    return TurnTaking(agent_bench(station.where, lost_seconds=LOST_SECONDS), station.name)


def publish(result: FleetRound) -> None:
    """What Prefect's pages show of a round: every figure, and what got worse in words."""
    create_table_artifact(finding_rows(result.findings), key="fleet-figures", description=result.round_id)
    create_markdown_artifact(markdown_of(result), key="fleet-benchmark", description=result.round_id)
