"""What every bench must do, this machine or a board far away. Inherit, and give the fixture `bench`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_bench.bench import Bench
from device_bench.errors import BadInputError
from device_bench.known_models import ANSWERS, INPUTS, KNOWN_MODELS, KnownModel
from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Failure,
    FailureKind,
    Limits,
    Measurement,
    Profile,
    Rounds,
    RuntimeName,
    TimingPolicy,
)
from device_bench.statistics import latency

QUICK = TimingPolicy(warmup_seconds=0, min_samples=8, min_seconds=0, max_seconds=5)
BY_FILE = {model.file: model for model in KNOWN_MODELS}
each_model = pytest.mark.parametrize("model", KNOWN_MODELS, ids=lambda model: model.file)
each_format = pytest.mark.parametrize("file", ["int8.onnx", "int8.tflite"])


def request_of(path: Path, **settings: object) -> BenchRequest:
    """A quick request; the runtime follows the file's ending."""
    runtime = RuntimeName.ONNXRUNTIME if path.suffix == ".onnx" else RuntimeName.LITERT
    given = {"path": str(path), "runtime": runtime, "timing": QUICK, "limits": Limits(wall_seconds=120)}
    return BenchRequest.model_validate(given | settings)


def pictures_for(model: KnownModel) -> np.ndarray:
    return model.shaped(np.load(INPUTS))


class BenchSuite:
    """Inherit it in a test class and give `bench`."""

    @each_model
    def test_measures(self, bench: Bench, model: KnownModel) -> None:
        found = bench.measure(request_of(model.path, seed=3))
        assert isinstance(found, Measurement), found
        assert found.latency == latency(found.samples_ns, 3)
        assert found.latency.samples >= QUICK.min_samples and found.latency.min_ms > 0
        assert found.memory.file_bytes == model.path.stat().st_size
        assert found.memory.peak_bytes >= 0
        assert found.conditions.runtime is model.runtime and found.conditions.threads == 1
        assert found.conditions.runtime_version and found.conditions.started_at
        assert found.conditions.device.cpu_count >= 1 and found.conditions.device.memory_bytes > 0
        assert [info.shape for info in found.inputs] in ([(1, *model.shape)], [(-1, *model.shape)])

    @each_model
    def test_predicts_what_is_known(self, bench: Bench, model: KnownModel) -> None:
        got = bench.predict(request_of(model.path), pictures_for(model))
        assert isinstance(got, np.ndarray), got
        with np.load(ANSWERS) as answers:
            expected = answers[model.file]
        assert got.shape == expected.shape and got.dtype == np.float32
        assert np.abs(got - expected).max() <= model.tolerance
        assert (got.argmax(1) == expected.argmax(1)).all()

    def test_compares_two_runtimes(self, bench: Bench) -> None:
        first, second = (request_of(BY_FILE[name].path) for name in ("int8.onnx", "int8.tflite"))
        found = bench.compare(first, second, Rounds(count=3, seconds=0.02))
        assert isinstance(found, Comparison), found
        assert found.rounds == 3 and 0 < found.low <= found.speedup <= found.high
        assert found.first.samples >= 3 and found.second.samples >= 3
        assert any("unlike conditions" in warning for warning in found.warnings)

    @each_model
    def test_says_where_the_time_goes_or_that_it_cannot(self, bench: Bench, model: KnownModel) -> None:
        found = bench.profile(request_of(model.path))
        if isinstance(found, Failure):
            assert found.kind is FailureKind.UNSUPPORTED and found.message
        else:
            assert isinstance(found, Profile)
            accounted = sum(operator.ms for operator in found.operators)
            assert found.operators and accounted + found.other_ms == pytest.approx(found.whole_ms, rel=1e-6)

    @pytest.mark.parametrize("ending", [".onnx", ".tflite"])
    @pytest.mark.parametrize("what", ["empty", "random", "truncated"])
    def test_a_file_that_is_no_model(self, bench: Bench, tmp_path: Path, ending: str, what: str) -> None:
        known = BY_FILE["int8" + ending].path.read_bytes()
        noise = np.random.default_rng(1).integers(0, 256, 4096, dtype=np.uint8).tobytes()
        path = tmp_path / f"broken{ending}"
        path.write_bytes({"empty": b"", "random": noise, "truncated": known[: len(known) // 2]}[what])
        found = bench.measure(request_of(path))
        assert isinstance(found, Failure), found
        assert found.kind in {FailureKind.NOT_A_MODEL, FailureKind.CRASHED, FailureKind.OUT_OF_MEMORY}
        assert found.message
        self._next_is_measured(bench, "int8" + ending)

    @each_format
    def test_an_accelerator_that_is_not_there(self, bench: Bench, file: str) -> None:
        found = bench.measure(request_of(BY_FILE[file].path, accelerator="abacus"))
        assert isinstance(found, Failure)
        assert found.kind is FailureKind.UNSUPPORTED
        assert "abacus" in found.message and "cpu" in found.message
        self._next_is_measured(bench, file)

    @each_format
    def test_samples_that_do_not_fit(self, bench: Bench, file: str) -> None:
        found = bench.predict(request_of(BY_FILE[file].path), np.zeros((2, 3, 3), np.float32))
        assert isinstance(found, Failure) and found.message
        self._next_is_measured(bench, file)

    @each_format
    def test_samples_that_are_no_numbers(self, bench: Bench, file: str) -> None:
        model = BY_FILE[file]
        samples = pictures_for(model).copy()
        samples[1, 0] = np.nan
        try:
            found = bench.predict(request_of(model.path), samples)
        except BadInputError as error:
            assert "NaN" in str(error) or "nan" in str(error)
        else:
            assert isinstance(found, Failure) and found.kind is FailureKind.BAD_INPUT
        self._next_is_measured(bench, file)

    def test_a_file_that_is_not_there(self, bench: Bench, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="no file"):
            bench.measure(request_of(tmp_path / "absent.onnx"))

    def _next_is_measured(self, bench: Bench, file: str) -> None:
        model = BY_FILE[file]
        assert isinstance(bench.measure(request_of(model.path)), Measurement)
        got = bench.predict(request_of(model.path), pictures_for(model))
        with np.load(ANSWERS) as answers:
            assert isinstance(got, np.ndarray)
            assert (got.argmax(1) == answers[file].argmax(1)).all()
