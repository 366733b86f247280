"""What a standing server asks of Prefect's API, and how it says it, whatever changes in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from flows.deployments.announcements import Announcements, held_up, when
from flows.deployments.pool import DeployedFlow, PoolState, deployed_flows, pool_state


def schedule(active: bool) -> SimpleNamespace:
    return SimpleNamespace(active=active, schedule=SimpleNamespace(cron="0 5 * * *", timezone="UTC"))


@dataclass
class Server:
    """A Prefect server on which somebody deploys something after every question."""

    flow: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(id=uuid4(), name="compress"))
    deployments: list[SimpleNamespace] = field(default_factory=list)
    waiting: int = 0
    is_paused: bool = False

    def deploy(self) -> None:
        name = f"number-{len(self.deployments)}"
        self.deployments.append(
            SimpleNamespace(id=uuid4(), flow_id=self.flow.id, name=name, schedules=[schedule(True)])
        )

    async def read_flows(self, **_: Any) -> list[SimpleNamespace]:
        self.deploy()
        return [self.flow]

    async def read_deployments(self, **_: Any) -> list[SimpleNamespace]:
        found = list(self.deployments)
        self.deploy()
        return found

    async def read_flow_runs(self, **_: Any) -> list[SimpleNamespace]:
        later = datetime.now(UTC) + timedelta(hours=1)
        return [SimpleNamespace(next_scheduled_start_time=later)] * self.waiting

    async def read_work_pool(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(is_paused=self.is_paused)


def test_a_deployment_that_is_made_in_between_waits_for_the_next_look() -> None:
    server: Any = Server()
    assert asyncio.run(deployed_flows(server, "edgeloop")) == []
    (one,) = asyncio.run(deployed_flows(server, "edgeloop"))[:1]
    assert (one.name, one.schedules, one.paused) == ("compress/number-0", ("0 5 * * * UTC",), ())


def test_a_paused_schedule_is_no_missing_one() -> None:
    server: Any = Server()
    server.deploy()
    server.deployments[0].schedules = [schedule(False)]
    (one,) = asyncio.run(deployed_flows(server, "edgeloop"))
    assert when(one) == "runs when asked to; its schedule 0 5 * * * UTC is switched off"
    assert when(DeployedFlow(name="a", schedules=(), next_run=None)) == "runs when asked to"


@pytest.mark.parametrize(
    ("paused", "waiting", "told"),
    [
        (True, 2, "the work pool is paused (`prefect work-pool resume` goes on): 2 runs wait"),
        (True, 1, "1 run waits"),
        (False, 3, "3 runs wait for a place"),
        (False, 0, "none waits"),
    ],
)
def test_what_holds_runs_up_is_said(paused: bool, waiting: int, told: str) -> None:
    server: Any = Server(waiting=waiting, is_paused=paused)
    state = asyncio.run(pool_state(server, "edgeloop"))
    assert state == PoolState(is_paused=paused, waiting=waiting)
    assert told in held_up(state)


def test_only_what_changed_is_said() -> None:
    screen = StringIO()
    say = Announcements(Console(file=screen, width=200))
    deployed = DeployedFlow(name="compress/daily", schedules=("0 5 * * * UTC",), next_run=None)
    say.deployments([deployed])
    say.deployments([deployed])
    say.deployments([deployed.model_copy(update={"schedules": (), "paused": deployed.schedules})])
    for waiting in (0, 2, 2):
        say.pool(PoolState(is_paused=False, waiting=waiting))
    for text in ("a", "a", "", "b"):
        say.complaint(text)
    told = [line[10:] for line in screen.getvalue().splitlines()]
    assert told == [
        "deployed: compress/daily, by 0 5 * * * UTC",
        "changed: compress/daily, runs when asked to; its schedule 0 5 * * * UTC is switched off",
        "2 runs wait for a place",
        "a",
        "b",
    ]
