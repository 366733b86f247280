"""Visits of the fleet benchmark that nobody made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from device_bench.protocol import (
    Comparison,
    Conditions,
    DeviceInfo,
    Latency,
    Measurement,
    Memory,
    RuntimeName,
)
from pipeline.fleet.history import FleetMeasurement, Watched

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WATCHED = Watched(release="net", sha256="0" * 64, device="board-07", runtime=RuntimeName.LITERT)
_DEVICE = DeviceInfo(
    hostname="board-07",
    machine="aarch64",
    system="Linux",
    cpu_model="A72",
    cpu_count=4,
    memory_bytes=1 << 32,
)
_USUAL = {
    "device": _DEVICE,
    "runtime": RuntimeName.LITERT,
    "runtime_version": "2.3.0",
    "accelerator": "cpu",
    "threads": 1,
}


def visit(
    day: int, cost: float, peak: int = 5 << 20, watched: Watched = WATCHED, **conditions: object
) -> FleetMeasurement:
    """A visit on that day: `cost` is the latency beside the reference's."""
    made = Conditions.model_validate(_USUAL | conditions)
    return FleetMeasurement(
        watched=watched,
        round_id=f"day-{day}",
        measured_at=BEGAN + timedelta(days=day),
        measurement=Measurement(
            samples_ns=(1,),
            latency=_latency(cost),
            memory=Memory(peak_bytes=peak, file_bytes=1),
            conditions=made,
        ),
        beside_reference=Comparison(
            speedup=cost,
            low=cost,
            high=cost,
            rounds=1,
            first=_latency(cost),
            second=_latency(1.0),
            conditions=made,
        ),
        reference_sha256="1" * 64,
    )


def _latency(ms: float) -> Latency:
    names = ("min", "mean", "p50", "p90", "p95", "p99", "p50_low", "p50_high")
    return Latency.model_validate({"samples": 1, "std_ms": 0.0, **{f"{name}_ms": ms for name in names}})
