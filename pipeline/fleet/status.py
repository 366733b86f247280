"""One device of a fleet now: whether it answers, and what its history says."""

from __future__ import annotations

from datetime import datetime

from device_bench.protocol import Record, RuntimeName
from pipeline.fleet.history_store import HistoryStore
from pipeline.fleet.regression import State
from pipeline.fleet.rounds import findings_of


class DeviceStatus(Record):
    """`problem`: why it cannot be measured on; None if it can. `worse`: figures that got worse, in words."""

    device: str
    device_class: str | None
    processor: str
    runtimes: tuple[RuntimeName, ...]
    emulated: bool = False
    problem: str | None = None
    watched: int = 0
    worse: tuple[str, ...] = ()
    last_visit: datetime | None = None


def with_history(status: DeviceStatus, history: HistoryStore) -> DeviceStatus:
    """The same device with what was measured on it."""
    watched = history.watched(status.device)
    last = history.last_of_device(status.device)
    worse = [
        f"{one.watched.release} on {status.device}: {one.figure.value} ×{one.ratio:.2f}"
        for one in findings_of(history, watched)
        if one.state is State.WORSE
    ]
    return status.model_copy(
        update={
            "watched": len(watched),
            "worse": tuple(worse),
            "last_visit": None if last is None else last.measured_at,
        }
    )
