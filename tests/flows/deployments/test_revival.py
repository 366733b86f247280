"""Which flow runs are scheduled again: those whose process ended before they did, and no others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import State

from flows.deployments.ledger import Ledger
from flows.deployments.revival import MOST_DEATHS, PENDING_SECONDS, Reviver

LONG_AGO = datetime.now(UTC) - timedelta(seconds=10 * PENDING_SECONDS)


def a_run(kind: str, at: datetime = LONG_AGO, worker: str = "here") -> SimpleNamespace:
    """A flow run as Prefect's client gives it."""
    return SimpleNamespace(
        id=uuid4(),
        name="a run",
        state=State(type=StateType(kind), timestamp=at),
        deployment_id=uuid4(),
        labels={"prefect.worker.name": worker},
    )


@dataclass
class Server:
    """What a Prefect server knows, asked as its client is."""

    runs: list[SimpleNamespace] = field(default_factory=list)
    command: str = "python -m flows.deployments.process"

    async def read_flow_run(self, flow_run_id: str) -> SimpleNamespace:
        for run in self.runs:
            if run.id == UUID(flow_run_id):
                return run
        raise ObjectNotFound(LookupError(flow_run_id))

    async def read_flow_runs(self, **asked: Any) -> list[SimpleNamespace]:
        return [run for run in self.runs if run.state.type == StateType.PENDING]

    async def read_deployment(self, deployment_id: UUID) -> SimpleNamespace:
        return SimpleNamespace(job_variables={"command": self.command})

    async def set_flow_run_state(self, flow_run_id: UUID, state: State[Any], force: bool) -> None:
        assert force
        (run,) = [run for run in self.runs if run.id == flow_run_id]
        run.state = state

    def states(self) -> list[str]:
        return [run.state.name for run in self.runs]


Look = Callable[..., list[str]]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def died(ledger: Ledger, run: SimpleNamespace) -> None:
    """A process of the run signed in, and ended."""
    with ledger.signed_in(str(run.id)):
        pass


def looker(ledger: Ledger, server: Server) -> Look:
    reviver = Reviver(ledger, "edgeloop", "here")

    def look(*, watched: bool = True) -> list[str]:
        client: Any = server
        return [one.told for one in asyncio.run(reviver.look(client, watched=watched))]

    return look


@pytest.mark.parametrize("kind", ["RUNNING", "PENDING", "CRASHED"])
def test_what_the_server_before_left_is_scheduled_at_once(ledger: Ledger, kind: str) -> None:
    server = Server([a_run(kind)])
    died(ledger, server.runs[0])
    assert looker(ledger, server)(watched=False) == [
        "its process ended before it did: it goes on where it was"
    ]
    assert server.states() == ["AwaitingRetry"]
    ((entry, _),) = ledger.entries()
    assert entry.deaths == 0
    assert looker(ledger, server)() == []


@pytest.mark.parametrize("kind", ["COMPLETED", "FAILED", "CANCELLED"])
def test_what_came_to_an_end_is_struck(ledger: Ledger, kind: str) -> None:
    server = Server([a_run(kind)])
    died(ledger, server.runs[0])
    assert looker(ledger, server)() == []
    assert server.runs[0].state.type == StateType(kind)
    assert ledger.entries() == []


def test_a_failure_of_a_process_that_was_told_to_end_is_none(ledger: Ledger) -> None:
    server = Server([a_run("FAILED"), a_run("FAILED"), a_run("COMPLETED")])
    for run in server.runs:
        died(ledger, run)
        if run is server.runs[0]:
            ledger.note_ending({os.getpid()})
    assert len(looker(ledger, server)(watched=False)) == 1
    assert server.states() == ["AwaitingRetry", "Failed", "Completed"]
    ((entry, _),) = ledger.entries()
    assert entry.flow_run_id == str(server.runs[0].id)


def test_what_was_done_as_it_was_told_to_end_is_done(ledger: Ledger) -> None:
    server = Server([a_run("COMPLETED"), a_run("CANCELLED")])
    for run in server.runs:
        died(ledger, run)
    ledger.note_ending({os.getpid()})
    assert looker(ledger, server)(watched=False) == []
    assert server.states() == ["Completed", "Cancelled"]
    assert ledger.entries() == []


def test_a_run_at_work_is_left_alone(ledger: Ledger) -> None:
    server = Server([a_run("RUNNING"), a_run("CRASHED")])
    with ledger.signed_in(str(server.runs[0].id)), ledger.signed_in(str(server.runs[1].id)):
        look = looker(ledger, server)
        assert [look(), look(), look(watched=False)] == [[], [], []]
    assert server.states() == ["Running", "Crashed"]


def test_the_worker_is_given_time_to_tell(ledger: Ledger) -> None:
    server = Server([a_run("RUNNING")])
    died(ledger, server.runs[0])
    look = looker(ledger, server)
    assert look() == []
    server.runs[0].state = State(type=StateType.CRASHED)
    assert len(look()) == 1
    # The new process is about to sign in.
    server.runs[0].state = State(type=StateType.PENDING)
    assert [look(), look()] == [[], []]
    server.runs[0].state = State(type=StateType.PENDING, timestamp=LONG_AGO)
    assert len(look()) == 1


def test_one_that_dies_again_and_again_is_left_to_a_person(ledger: Ledger) -> None:
    server = Server([a_run("CRASHED")])
    died(ledger, server.runs[0])
    look = looker(ledger, server)
    for _ in range(MOST_DEATHS):
        assert look() == ["its process ended before it did: it goes on where it was"]
        server.runs[0].state = State(type=StateType.CRASHED)
    (told,) = look()
    assert told.startswith(f"its process ended {MOST_DEATHS + 1} times")
    assert server.states() == ["Crashed"]
    assert ledger.entries() == []


def test_a_run_whose_cancelling_nobody_finished_is_cancelled(ledger: Ledger) -> None:
    server = Server([a_run("CANCELLING")])
    died(ledger, server.runs[0])
    assert looker(ledger, server)(watched=False) == []
    assert server.states() == ["Cancelled"]
    assert ledger.entries() == []


def test_a_run_that_prefect_has_forgotten_is_struck(ledger: Ledger) -> None:
    died(ledger, a_run("RUNNING"))
    assert looker(ledger, Server())() == []
    assert ledger.entries() == []


def test_what_our_worker_took_and_never_began_is_submitted_again(ledger: Ledger) -> None:
    server = Server([a_run("PENDING"), a_run("PENDING", worker="elsewhere"), a_run("PENDING")])
    server.runs[2].state = State(type=StateType.PENDING)
    assert looker(ledger, server)() == ["its process never began: it is submitted again"]
    assert server.states() == ["AwaitingRetry", "Pending", "Pending"]
    assert len(looker(ledger, server)(watched=False)) == 1
    assert server.states() == ["AwaitingRetry", "Pending", "AwaitingRetry"]


def test_processes_that_sign_in_nowhere_are_not_guessed_at(ledger: Ledger) -> None:
    server = Server([a_run("PENDING")], command="python -m prefect.engine")
    assert looker(ledger, server)(watched=False) == []
    assert server.states() == ["Pending"]
