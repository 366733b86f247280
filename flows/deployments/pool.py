"""What a standing server asks Prefect's API: the work pool, what is deployed, what runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from device_bench.errors import BadInputError
from device_bench.protocol import Record

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

DEFAULT_POOL = "edgeloop"
POOL_TYPE = "process"
# Runs looked at in one go: those that a person still remembers.
RECENT = 50


class DeployedFlow(Record):
    """One deployment of the pool: "compress/on-demand", its schedules in words, its next run.

    Args:
        schedules: those that are active.
        paused: those that are not.
    """

    name: str
    schedules: tuple[str, ...]
    next_run: datetime | None
    paused: tuple[str, ...] = ()


class PoolState(Record):
    """Whether the pool's worker may take runs, and how many that are due wait for it."""

    is_paused: bool
    waiting: int


class FlowRunLine(Record):
    """One flow run as a line on the screen; `message` is its state's own."""

    flow_run_id: str
    deployment: str
    name: str
    state: str
    kind: str
    message: str
    at: datetime


async def ensure_pool(client: PrefectClient, name: str) -> bool:
    """Make the work pool where it is missing; True if it was made now.

    Raises:
        BadInputError: there is one of that name whose runs are not processes.
    """
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    try:
        found = await client.read_work_pool(name)
    except ObjectNotFound:
        description = "Flow runs as processes on the machines where `edgeloop server up` runs."
        await client.create_work_pool(WorkPoolCreate(name=name, type=POOL_TYPE, description=description))
        return True
    if found.type != POOL_TYPE:
        raise BadInputError(
            f"work pool {name} is of type {found.type}; a worker here needs one of type {POOL_TYPE}: give "
            "--pool another name, and name it in prefect.yaml"
        )
    return False


async def worker_is_online(client: PrefectClient, pool: str, worker: str) -> bool:
    """True if a worker of that name reports to the pool."""
    workers = await client.read_workers_for_work_pool(pool)
    return any(one.name == worker and str(one.status).endswith("ONLINE") for one in workers)


async def deployed_flows(client: PrefectClient, pool: str) -> list[DeployedFlow]:
    """The pool's deployments by name, each with the time it fires next."""
    from prefect.client.schemas.sorting import FlowRunSort

    deployments = await client.read_deployments(work_pool_filter=_pool(pool))
    names = await _names(client, pool, deployments)
    found = []
    for one in deployments:
        runs = await client.read_flow_runs(
            flow_run_filter=_in_state(any_=["SCHEDULED"]),
            deployment_filter=_deployment(str(one.id)),
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
            limit=1,
        )
        found.append(
            DeployedFlow(
                name=names[str(one.id)],
                schedules=tuple(_in_words(entry.schedule) for entry in one.schedules if entry.active),
                paused=tuple(_in_words(entry.schedule) for entry in one.schedules if not entry.active),
                next_run=runs[0].next_scheduled_start_time if runs else None,
            )
        )
    return sorted(found, key=lambda one: one.name)


async def recent_runs(client: PrefectClient, pool: str) -> list[FlowRunLine]:
    """The pool's latest flow runs that have begun or are about to, oldest first."""
    from prefect.client.schemas.sorting import FlowRunSort

    runs = await client.read_flow_runs(
        flow_run_filter=_in_state(not_any_=["SCHEDULED"]),
        work_pool_filter=_pool(pool),
        sort=FlowRunSort.START_TIME_DESC,
        limit=RECENT,
    )
    names = await _names(client, pool, await client.read_deployments(work_pool_filter=_pool(pool)))
    return [
        FlowRunLine(
            flow_run_id=str(run.id),
            deployment=names.get(str(run.deployment_id), "a deployment that is gone"),
            name=run.name,
            state=run.state.name,
            kind=run.state.type.value,
            message=run.state.message or "",
            at=run.state.timestamp,
        )
        for run in reversed(runs)
        if run.state is not None
    ]


async def pool_state(client: PrefectClient, pool: str) -> PoolState:
    """What keeps runs from beginning."""
    found = await client.read_work_pool(pool)
    due = await client.read_flow_runs(
        flow_run_filter=_due(datetime.now(UTC)), work_pool_filter=_pool(pool), limit=RECENT
    )
    return PoolState(is_paused=bool(found.is_paused), waiting=len(due))


async def _names(
    client: PrefectClient, pool: str, deployments: Sequence[DeploymentResponse]
) -> dict[str, str]:
    """ "compress/on-demand" of each of the deployments, by its id.

    Read after them: one that was made in between has no name yet, and is none of them.
    """
    flows = {flow.id: flow.name for flow in await client.read_flows(work_pool_filter=_pool(pool))}
    return {str(one.id): f"{flows.get(one.flow_id, '?')}/{one.name}" for one in deployments}


def _due(now: datetime) -> object:
    from prefect.client.schemas.filters import FlowRunFilter

    asked = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now}}
    return FlowRunFilter.model_validate(asked)


def _pool(name: str) -> object:
    from prefect.client.schemas.filters import WorkPoolFilter

    return WorkPoolFilter.model_validate({"name": {"any_": [name]}})


def _deployment(identity: str) -> object:
    from prefect.client.schemas.filters import DeploymentFilter

    return DeploymentFilter.model_validate({"id": {"any_": [identity]}})


def _in_state(**types: list[str]) -> object:
    from prefect.client.schemas.filters import FlowRunFilter

    return FlowRunFilter.model_validate({"state": {"type": types}})


def _in_words(schedule: object) -> str:
    """ "0 1 * * * UTC", "every 1:00:00", or the rule of a calendar."""
    cron, interval = getattr(schedule, "cron", None), getattr(schedule, "interval", None)
    if cron is not None:
        return f"{cron} {getattr(schedule, 'timezone', None) or 'UTC'}"
    return f"every {interval}" if interval is not None else str(getattr(schedule, "rrule", schedule))
