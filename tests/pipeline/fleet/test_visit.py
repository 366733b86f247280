"""A visit on this machine: alone, beside the reference, and small enough to keep for years."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fleet_visits import visit as made_up

from device_bench.bench import LocalBench
from device_bench.errors import BadInputError
from device_bench.known_models import KNOWN_MODELS
from device_bench.protocol import Failure, FailureKind, Rounds, RuntimeName, TimingPolicy
from pipeline.fleet import visit as page
from pipeline.fleet.history import FleetMeasurement, Watched
from pipeline.fleet.reference import REFERENCES, reference_for
from pipeline.fleet.visit import MOST_SAMPLES, thinned, visit

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = TimingPolicy(warmup_seconds=0.0, min_samples=8, min_seconds=0.02, max_seconds=5.0)
    monkeypatch.setattr(page, "TIMING", timing)
    monkeypatch.setattr(page, "ROUNDS", Rounds(count=3, seconds=0.02))


def watched(path: Path, runtime: RuntimeName) -> Watched:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Watched(release="net", sha256=digest, device="local", runtime=runtime)


@pytest.mark.parametrize("runtime", [RuntimeName.ONNXRUNTIME, RuntimeName.LITERT])
def test_a_visit_is_made_beside_the_reference(runtime: RuntimeName) -> None:
    path = next(m.path for m in KNOWN_MODELS if m.runtime is runtime and "float" in m.file)
    name = watched(path, runtime)
    found = visit(LocalBench(), path, name, "round", lambda: NOW)
    assert isinstance(found, FleetMeasurement), found
    assert (found.watched, found.round_id, found.measured_at) == (name, "round", NOW)
    assert found.measurement.latency.p50_ms > 0
    assert 0 < len(found.measurement.samples_ns) <= MOST_SAMPLES
    first, second = found.beside_reference.first, found.beside_reference.second
    assert found.cost == pytest.approx(first.p50_ms / second.p50_ms, rel=0.5)
    assert found.reference_sha256 == hashlib.sha256(reference_for(runtime).read_bytes()).hexdigest()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"no model")
    found = visit(LocalBench(), path, watched(path, RuntimeName.LITERT), "round", lambda: NOW)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.NOT_A_MODEL


def test_samples_are_thinned_evenly_and_figures_stay() -> None:
    one = made_up(0, 1.0).measurement
    many = one.model_copy(update={"samples_ns": tuple(range(250_001))})
    kept = thinned(many)
    assert len(kept.samples_ns) <= MOST_SAMPLES
    assert kept.samples_ns[:3] == (0, 251, 502) and kept.samples_ns[-1] > 249_000
    assert kept.latency == many.latency
    assert thinned(one) == one


def test_the_references_are_those_that_histories_began_with() -> None:
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in REFERENCES.values()}
    assert digests == {"pace.onnx": "18a090bc9867ca0b", "pace.tflite": "dd08e6d2aca0d13f"}


def test_a_runtime_without_a_reference() -> None:
    with pytest.raises(BadInputError, match=r"no reference model runs on torch.*litert, onnxruntime"):
        reference_for(RuntimeName.TORCH)
