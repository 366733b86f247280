"""What every runtime of the bench must do. Inherit, and say by the class variables which one it is.

The fixture `net` gives a folder with one small float net in every format, and its expected outputs.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from device_bench.local import compare, measure, predict
from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Failure,
    FailureKind,
    Measurement,
    Rounds,
    RuntimeName,
    TimingPolicy,
)
from device_bench.runtimes import MODULES, import_runtime
from device_bench.runtimes.base import LoadOptions, RuntimeFailure, load_checked

QUICK = TimingPolicy(warmup_seconds=0, min_samples=8, min_seconds=0, max_seconds=5)


class RuntimeSuite:
    """Inherit as `TestX`."""

    name: RuntimeName
    file: str
    accelerator = "cpu"

    @pytest.fixture
    def path(self, net: Path) -> Path:
        return net / self.file

    @pytest.fixture
    def request_(self, path: Path) -> BenchRequest:
        return BenchRequest(path=str(path), runtime=self.name, accelerator=self.accelerator, timing=QUICK)

    @pytest.fixture
    def expected(self, net: Path) -> SimpleNamespace:
        with np.load(net / "expected.npz") as stored:
            return SimpleNamespace(inputs=stored["inputs"], outputs=stored["outputs"])

    def load(self, path: Path):
        options = LoadOptions(threads=1, accelerator=self.accelerator)
        return load_checked(import_runtime(MODULES[self.name]), self.name.value, path, options)

    def test_it_says_what_it_is(self) -> None:
        runtime = import_runtime(MODULES[self.name])
        assert any(letter.isdigit() for letter in runtime.version())
        found = runtime.accelerators()
        assert found[0] == "cpu" and self.accelerator in found and len(set(found)) == len(found)

    def test_tensors_are_described(self, path: Path, expected: SimpleNamespace) -> None:
        model = self.load(path)
        (source,), (sink,) = model.inputs, model.outputs
        assert source.dtype == sink.dtype == "float32"
        assert source.shape == (1, *expected.inputs.shape[1:])
        assert sink.shape == (1, *expected.outputs.shape[1:])

    def test_it_computes_what_torch_computed(self, path: Path, expected: SimpleNamespace) -> None:
        model = self.load(path)
        for sample, wanted in zip(expected.inputs[:4], expected.outputs[:4], strict=True):
            model.set_inputs([sample[None]])
            model.invoke()
            (found,) = model.read_outputs()
            assert np.abs(found[0] - wanted).max() < 1e-4

    def test_outputs_are_the_callers_own(self, path: Path, expected: SimpleNamespace) -> None:
        model = self.load(path)
        model.set_inputs([expected.inputs[:1]])
        model.invoke()
        (kept,) = model.read_outputs()
        before = kept.copy()
        model.set_inputs([expected.inputs[1:2]])
        model.invoke()
        assert np.array_equal(kept, before)

    def test_every_operator_has_a_place(self, path: Path) -> None:
        placements = self.load(path).placements
        assert sum(place.count for place in placements) >= 3
        assert all(place.where and place.operator and place.count > 0 for place in placements)

    def test_an_accelerator_that_is_not_there(self, path: Path) -> None:
        with pytest.raises(RuntimeFailure, match=r"'abacus' is not to be had .* there is: cpu") as caught:
            load_checked(import_runtime(MODULES[self.name]), self.name.value, path, LoadOptions(1, "abacus"))
        assert caught.value.kind is FailureKind.UNSUPPORTED

    def test_it_is_measured(self, request_: BenchRequest) -> None:
        found = measure(request_)
        assert isinstance(found, Measurement), found
        assert found.latency.samples >= QUICK.min_samples and found.latency.min_ms > 0
        conditions = found.conditions
        assert (conditions.runtime, conditions.accelerator) == (self.name, self.accelerator)
        assert conditions.placements
        assert found.inputs and found.outputs

    def test_it_is_compared(self, request_: BenchRequest) -> None:
        found = compare(request_, request_, Rounds(count=2, seconds=0.02))
        assert isinstance(found, Comparison), found

    def test_it_predicts(self, request_: BenchRequest, expected: SimpleNamespace) -> None:
        found = predict(request_, expected.inputs)
        assert isinstance(found, np.ndarray), found
        assert np.abs(found - expected.outputs).max() < 1e-4

    def test_samples_that_are_no_numbers(self, request_: BenchRequest, expected: SimpleNamespace) -> None:
        samples = expected.inputs.copy()
        samples[2, 0, 0, 0] = np.nan
        found = predict(request_, samples)
        assert isinstance(found, Failure) and found.kind is FailureKind.BAD_INPUT
        assert "first in sample 2" in found.message

    def test_what_is_no_model_is_a_typed_failure_and_the_next_one_works(
        self, request_: BenchRequest, tmp_path: Path
    ) -> None:
        whole = Path(request_.path).read_bytes()
        broken = {
            "empty": b"",
            "half": whole[: len(whole) // 2],
            "random": np.random.default_rng(0).bytes(5000),
            "archive": b"PK\x05\x06" + bytes(18),
            "text": b"this is a model, really\n" * 50,
        }
        kinds = {}
        for name, content in broken.items():
            bad = tmp_path / f"{name}{Path(request_.path).suffix}"
            bad.write_bytes(content)
            found = measure(request_.model_copy(update={"path": str(bad)}))
            assert isinstance(found, Failure) and found.message
            kinds[name] = found.kind
        assert kinds == dict.fromkeys(broken, FailureKind.NOT_A_MODEL)
        assert isinstance(measure(request_), Measurement)
