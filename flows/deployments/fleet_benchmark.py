"""`fleet-benchmark/daily`: measure every released file on every device, and fail where one got worse."""

from __future__ import annotations

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run

from flows.deployments.logbook import unattended


@flow(name="fleet-benchmark")
def fleet_benchmark(
    devices: list[str] | None = None,
    artifacts: str | None = None,
    store: str | None = None,
    round_id: str | None = None,
) -> State[None]:
    """Visit the fleet, compare with its history, and raise what got worse as a failed state.

    Args:
        devices: names of devices; all that are known, and this machine, where none are given.
        artifacts: URL of the released files; the worker's own setting where none is given.
        store: where the history is; the worker's own setting where none is given.
        round_id: goes on with an earlier round; a round of this flow run where none is given.
    """
    from prefect.states import Failed

    from flows.fleet.start import order_of

    found = []

    def round_made() -> str:
        from flows.fleet.benchmark import fleet_benchmark_flow
        from flows.fleet.slots import devices_by_prefect

        # A run that is started again has its flow run's id still, and so its round's.
        order = order_of(tuple(devices or ()), artifacts, store, round_id or f"run-{flow_run.id}")
        with devices_by_prefect():
            found.append(fleet_benchmark_flow.fn(order))
        return f"{found[-1].visits} visits, nothing got worse"

    state = unattended(get_run_logger(), round_made)
    if found and found[-1].regressions:
        from flows.fleet.wording import regressions_in_words

        return Failed(message=regressions_in_words(found[-1]))
    return state
