"""Files that are no models, or models made to do harm: a typed failure, and the next one is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from abuse_cases import (
    npy_that_says,
    onnx_huge_input,
    onnx_huge_middle,
    onnx_huge_weight,
    onnx_outside,
    tflite_huge,
    zip_bomb,
)
from live_agent import (
    LiveAgent,
    assert_measures,
    failure_of,
    npy,
    outcome_of,
    request_of,
    small_onnx,
    upload,
)

from device_bench.protocol import FailureKind, Measurement, RuntimeName
from device_bench.wire import CompareJob, MeasureJob, PredictJob

ONNX, LITERT = RuntimeName.ONNXRUNTIME, RuntimeName.LITERT
NO_ROOM = {
    FailureKind.OUT_OF_MEMORY,
    FailureKind.NOT_A_MODEL,
    FailureKind.UNSUPPORTED,
    FailureKind.RUNTIME_ERROR,
}


@pytest.fixture(autouse=True)
def measures_afterwards(agent: LiveAgent) -> Iterator[None]:
    yield
    assert_measures(agent)


@pytest.mark.parametrize("runtime", [ONNX, LITERT])
def test_no_models(agent: LiveAgent, runtime: RuntimeName) -> None:
    with agent.client() as client:
        for content in (b"", b"\0", b"hello", small_onnx()[:-20], tflite_huge()[:-20], zip_bomb()):
            failure = failure_of(client, MeasureJob(request=request_of(upload(client, content), runtime)))
            assert failure.kind is FailureKind.NOT_A_MODEL, (content[:20], failure)
            assert str(agent.state) not in failure.message


@pytest.mark.parametrize("make", [onnx_huge_input, onnx_huge_weight, onnx_huge_middle])
def test_huge_tensors_onnx(agent: LiveAgent, make: object) -> None:
    assert callable(make)
    before = agent.resident_bytes()
    with agent.client() as client:
        request = request_of(upload(client, make()))
        for job in (MeasureJob(request=request), CompareJob(first=request, second=request)):
            failure = failure_of(client, job)
            assert failure.kind in NO_ROOM, failure
            assert failure.message
    assert agent.resident_bytes() - before < 64 << 20


def test_huge_tensors_tflite(agent: LiveAgent) -> None:
    with agent.client() as client:
        failure = failure_of(client, MeasureJob(request=request_of(upload(client, tflite_huge()), LITERT)))
    assert failure.kind in NO_ROOM | {FailureKind.CRASHED}, failure


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_weights_that_lie_elsewhere(agent: LiveAgent, secret: Path, steps: int) -> None:
    """A model must not make the runtime read the board's own files."""
    location = str(secret) if steps == 0 else "../" * steps + "tokens.json"
    with agent.client() as client:
        failure = failure_of(client, MeasureJob(request=request_of(upload(client, onnx_outside(location)))))
    assert failure.kind in {FailureKind.NOT_A_MODEL, FailureKind.RUNTIME_ERROR}, failure
    assert "not for clients" not in failure.message and "digest" not in failure.message


def test_a_file_of_the_other_runtime(agent: LiveAgent) -> None:
    with agent.client() as client:
        failure = failure_of(client, MeasureJob(request=request_of(upload(client, small_onnx()), LITERT)))
    assert failure.kind is FailureKind.NOT_A_MODEL


@pytest.mark.parametrize("accelerator", ["warp-drive", "cuda", "cpu0"])
def test_unknown_accelerator(agent: LiveAgent, accelerator: str) -> None:
    with agent.client() as client:
        request = request_of(upload(client, small_onnx()), accelerator=accelerator)
        failure = failure_of(client, MeasureJob(request=request))
    assert failure.kind is FailureKind.UNSUPPORTED, failure
    assert accelerator in failure.message


def test_cores_and_threads_that_are_not_there(agent: LiveAgent) -> None:
    with agent.client() as client:
        model = upload(client, small_onnx())
        failure = failure_of(client, MeasureJob(request=request_of(model, cores=(9999,))))
        assert failure.kind in {FailureKind.BAD_INPUT, FailureKind.UNSUPPORTED}, failure
        outcome = outcome_of(client, MeasureJob(request=request_of(model, threads=64)))
        assert isinstance(outcome, Measurement), outcome


def test_nan_inputs(agent: LiveAgent) -> None:
    inputs = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
    with agent.client() as client:
        request = request_of(upload(client, small_onnx()))
        for value in (np.nan, np.inf, -np.inf):
            inputs[1, 2] = value
            job = PredictJob(request=request, inputs_sha256=upload(client, npy(inputs)))
            failure = failure_of(client, job)
            assert failure.kind is FailureKind.BAD_INPUT, failure
            assert "sample 1" in failure.message


def test_inputs_that_are_none(agent: LiveAgent) -> None:
    """Headers that promise terabytes, objects (pickles), zips, wrong types and shapes."""
    float32 = np.zeros((2, 4), np.float32)
    cases = {
        "empty": b"",
        "garbage": b"\x93NUMPY" + b"\xff" * 50,
        "terabytes": npy_that_says((1 << 40, 4)),
        "overflow": npy_that_says((1 << 62, 1 << 62)),
        "negative": npy_that_says((-1, 4)),
        "pickle": npy_that_says((1,), descr="|O", content=b"cos\nsystem\n(S'true'\ntR."),
        "zip": zip_bomb(),
        "no samples": npy(float32[:0]),
        "float64": npy(float32.astype(np.float64)),
        "text": npy(np.array([["a"] * 4])),
        "scalar": npy(np.float32(3)),
        "another shape": npy(np.zeros((2, 5), np.float32)),
    }
    with agent.client() as client:
        request = request_of(upload(client, small_onnx()))
        for name, content in cases.items():
            job = PredictJob(request=request, inputs_sha256=upload(client, content))
            failure = failure_of(client, job)
            assert failure.kind in {FailureKind.BAD_INPUT, FailureKind.RUNTIME_ERROR}, (name, failure)
            assert failure.message, name
