"""Flow runs of this machine whose process ended before they did are scheduled again, and go on.

A run that failed by itself, was cancelled or is done is not: only one that was cut off. Prefect cannot tell,
since who would have told it is dead; the ledger can.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.deployments.ledger import Ledger, LedgerEntry

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

# A run that ends its process again and again (out of memory, say) is left to a person after so many times.
MOST_DEATHS = 10
CUT_OFF = {"RUNNING", "PENDING", "CRASHED"}
UNDER_WAY = {"SCHEDULED", "PAUSED"}
# A process signs in as it begins; a run that waits longer for one than this has none.
PENDING_SECONDS = 60.0
SIGNS_IN = "flows.deployments.process"


@dataclass(frozen=True)
class Revival:
    """What was done about one flow run, in words for the screen."""

    flow_run_id: str
    name: str
    told: str


class Reviver:
    """Looks after the flow runs of this machine, again and again.

    Args:
        ledger: where their processes sign in.
        pool: the work pool they come from.
        worker: the name of this machine's worker.
    """

    def __init__(self, ledger: Ledger, pool: str, worker: str) -> None:
        self._ledger = ledger
        self._pool = pool
        self._worker = worker
        self._seen: set[str] = set()

    async def look(self, client: PrefectClient, *, watched: bool) -> list[Revival]:
        """Schedule again what was cut off.

        Args:
            watched: what ended since the last look ended under our eyes, so each end counts towards
                `MOST_DEATHS`. Not so at the start: it ended with the server before.
        """
        entries = self._ledger.entries()
        found = [await self._look_after(client, entry, watched) for entry, alive in entries if not alive]
        known = {entry.flow_run_id for entry, _ in entries}
        found += [await self._submit_again(client, run, watched) for run in await self._lost(client, known)]
        return [one for one in found if one is not None]

    async def _look_after(self, client: PrefectClient, entry: LedgerEntry, watched: bool) -> Revival | None:
        from prefect.exceptions import ObjectNotFound
        from prefect.states import Cancelled

        try:
            run = await client.read_flow_run(entry.flow_run_id)
        except ObjectNotFound:
            self._ledger.strike(entry.flow_run_id)
            return None
        kind = run.state.type.value if run.state is not None else "PENDING"
        if kind in UNDER_WAY or (watched and self._may_change(run, kind)):
            return None
        if kind == "CANCELLING":
            await client.set_flow_run_state(run.id, Cancelled(message="its process has ended"), force=True)
        if kind not in CUT_OFF and not (entry.told_to_end and kind == "FAILED"):
            self._ledger.strike(entry.flow_run_id)
            return None
        if entry.deaths >= MOST_DEATHS:
            self._ledger.strike(entry.flow_run_id)
            told = (
                f"its process ended {entry.deaths + 1} times: it is left; Retry on its page starts it again"
            )
            return Revival(entry.flow_run_id, run.name, told)
        if watched:
            self._ledger.count_death(entry)
        return await _schedule_again(client, run, "its process ended before it did: it goes on where it was")

    async def _lost(self, client: PrefectClient, known: Collection[str]) -> list[FlowRun]:
        """Runs that our worker took and died before their processes could sign in."""
        from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter

        pending = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": ["PENDING"]}}}),
            work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [self._pool]}}),
        )
        return [
            run
            for run in pending
            if str(run.id) not in known
            and run.labels.get("prefect.worker.name", self._worker) == self._worker
            and run.state is not None
        ]

    async def _submit_again(self, client: PrefectClient, run: FlowRun, watched: bool) -> Revival | None:
        if run.deployment_id is None or (watched and _seconds_pending(run) < PENDING_SECONDS):
            return None
        deployment = await client.read_deployment(run.deployment_id)
        # Others sign in nowhere, so nothing is known of their processes.
        if SIGNS_IN not in str((deployment.job_variables or {}).get("command", "")):
            return None
        return await _schedule_again(client, run, "its process never began: it is submitted again")

    def _may_change(self, run: FlowRun, kind: str) -> bool:
        """True while somebody else may still have something to tell of the run."""
        if kind == "PENDING":
            # Scheduled again before, it is about to get a new process.
            return _seconds_pending(run) < PENDING_SECONDS
        # The worker sees, too, that a process has ended; it must not tell after us.
        first = kind == "RUNNING" and str(run.id) not in self._seen
        self._seen = self._seen | {str(run.id)} if first else self._seen - {str(run.id)}
        return first


def _seconds_pending(run: FlowRun) -> float:
    return 0.0 if run.state is None else (datetime.now(UTC) - run.state.timestamp).total_seconds()


async def _schedule_again(client: PrefectClient, run: FlowRun, message: str) -> Revival:
    from prefect.states import AwaitingRetry

    await client.set_flow_run_state(run.id, AwaitingRetry(message=message), force=True)
    return Revival(str(run.id), run.name, message)
