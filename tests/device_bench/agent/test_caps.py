"""What clients ask for is cut down to what the board allows."""

from __future__ import annotations

from device_bench.agent.estimates import expected_seconds
from device_bench.agent.execution import capped_limits, capped_timing
from device_bench.agent.settings import AgentLimits
from device_bench.protocol import Limits, Rounds, TimingPolicy
from device_bench.wire import CompareJob, MeasureJob, PredictJob, RemoteRequest

ALLOWED = AgentLimits(wall_seconds=10, cpu_seconds=20, artifact_bytes=1000, memory_bytes=5000)
REQUEST = RemoteRequest(runtime="onnxruntime", sha256="0" * 64)


def test_more_than_allowed_is_cut_down() -> None:
    asked = Limits(
        wall_seconds=1e300, cpu_seconds=10**9, file_bytes=10**12, address_space_bytes=10**12, network=True
    )
    capped = capped_limits(asked, ALLOWED)
    assert (capped.wall_seconds, capped.cpu_seconds, capped.file_bytes) == (10, 20, 1000)
    assert capped.address_space_bytes == 5000
    assert capped.network is False
    timing = capped_timing(TimingPolicy(warmup_seconds=1e9, min_seconds=1e9, max_seconds=1e9), ALLOWED)
    assert (timing.warmup_seconds, timing.min_seconds, timing.max_seconds) == (10, 10, 10)


def test_less_than_allowed_stays() -> None:
    asked = Limits(wall_seconds=1, cpu_seconds=2, file_bytes=3, address_space_bytes=4)
    assert capped_limits(asked, ALLOWED) == asked
    assert capped_timing(TimingPolicy(max_seconds=5), ALLOWED) == TimingPolicy(max_seconds=5)


def test_memory_is_limited_where_either_side_says_so() -> None:
    free = AgentLimits()
    assert capped_limits(Limits(address_space_bytes=7), free).address_space_bytes == 7
    unlimited = Limits().model_copy(update={"address_space_bytes": None})
    assert capped_limits(unlimited, ALLOWED).address_space_bytes == 5000
    assert capped_limits(unlimited, free).address_space_bytes is None


def test_what_jobs_are_expected_to_take() -> None:
    timing = TimingPolicy(warmup_seconds=2, min_seconds=3, max_seconds=10)
    request = REQUEST.model_copy(update={"timing": timing})
    assert expected_seconds(MeasureJob(request=request)) == 5.5
    compared = CompareJob(first=request, second=request, rounds=Rounds(count=10, seconds=0.5))
    assert expected_seconds(compared) == 1 + 4 + 10
    assert expected_seconds(PredictJob(request=request, inputs_sha256="0" * 64)) > 0
