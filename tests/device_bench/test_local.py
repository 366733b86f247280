"""The real runtimes: measured, compared, and their outputs against numpy and torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_cases import request_for, save_onnx
from pydantic import ValidationError

from device_bench.errors import BadInputError
from device_bench.local import compare, measure, predict
from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Failure,
    FailureKind,
    Measurement,
    Rounds,
    RuntimeName,
)


def test_onnx_is_measured(onnx_file: Path) -> None:
    found = measure(request_for(onnx_file))
    assert isinstance(found, Measurement)
    assert found.latency.samples >= 8
    assert found.memory.file_bytes == onnx_file.stat().st_size
    assert found.memory.peak_bytes > 0
    assert found.memory.arena_bytes is not None and found.memory.arena_bytes > 0
    assert found.inputs[0].shape == (-1, 6)
    assert found.conditions.runtime is RuntimeName.ONNXRUNTIME
    assert found.conditions.threads == 1
    assert found.conditions.device.cpu_count >= 1


def test_tflite_is_measured(tflite_folder: Path) -> None:
    found = measure(request_for(tflite_folder / "int8.tflite"))
    assert isinstance(found, Measurement)
    (source,) = found.inputs
    assert source.dtype == "int8" and source.scale is not None and source.zero_point is not None
    conditions = found.conditions
    assert conditions.delegated_operators is not None and conditions.delegated_operators > 0
    assert "2." in conditions.runtime_version


def test_onnx_and_tflite_compare(onnx_file: Path, tflite_folder: Path) -> None:
    found = compare(
        request_for(tflite_folder / "float.tflite"), request_for(onnx_file), Rounds(count=3, seconds=0.02)
    )
    assert isinstance(found, Comparison)
    assert 0 < found.low <= found.speedup <= found.high
    assert any(warning.startswith("unlike conditions") for warning in found.warnings)


def test_onnx_predicts_what_numpy_computes(onnx_file: Path, onnx_weight: np.ndarray) -> None:
    samples = np.random.default_rng(1).standard_normal((600, 6)).astype(np.float32)
    found = predict(request_for(onnx_file), samples)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert np.abs(found - np.maximum(samples @ onnx_weight, 0)).max() < 1e-4


def test_onnx_with_a_fixed_batch_predicts_too(tmp_path: Path, onnx_weight: np.ndarray) -> None:
    save_onnx(tmp_path / "fixed.onnx", onnx_weight, batch=4)
    samples = np.random.default_rng(1).standard_normal((10, 6)).astype(np.float32)
    found = predict(request_for(tmp_path / "fixed.onnx"), samples)
    assert isinstance(found, np.ndarray)
    assert np.abs(found - np.maximum(samples @ onnx_weight, 0)).max() < 1e-4


def test_tflite_predicts_what_torch_computes(tflite_folder: Path) -> None:
    with np.load(tflite_folder / "expected.npz", allow_pickle=False) as expected:
        inputs, outputs = expected["inputs"], expected["outputs"]
    real = predict(request_for(tflite_folder / "float.tflite"), inputs)
    assert isinstance(real, np.ndarray)
    assert np.abs(real - outputs).max() < 1e-4
    int8 = predict(request_for(tflite_folder / "int8.tflite"), inputs)
    assert isinstance(int8, np.ndarray)
    assert 0 < np.abs(int8 - outputs).mean() < 0.03 * (outputs.max() - outputs.min())


def test_int8_is_converted_as_the_file_declares(tflite_folder: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    with np.load(tflite_folder / "expected.npz", allow_pickle=False) as expected:
        inputs = expected["inputs"]
    interpreter = Interpreter(str(tflite_folder / "int8.tflite"))
    interpreter.allocate_tensors()
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    (in_scale, in_zero), (out_scale, out_zero) = source["quantization"], sink["quantization"]
    wanted = []
    for sample in inputs:
        steps = np.clip(np.round(sample.astype(np.float64) / in_scale) + in_zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], steps[None])
        interpreter.invoke()
        wanted.append((interpreter.get_tensor(sink["index"])[0].astype(np.float64) - out_zero) * out_scale)
    found = predict(request_for(tflite_folder / "int8.tflite"), inputs)
    assert isinstance(found, np.ndarray)
    assert np.allclose(found, np.array(wanted), atol=1e-6)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize("content", [b"", b"hello world" * 50], ids=["empty", "garbage"])
def test_what_is_no_model_is_said_to_be_none(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    found = measure(request_for(path))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.NOT_A_MODEL
    assert found.message


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_no_models(
    tmp_path: Path, onnx_file: Path, tflite_folder: Path, share: float
) -> None:
    for whole in (onnx_file, tflite_folder / "int8.tflite"):
        path = tmp_path / whole.name
        content = whole.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        found = measure(request_for(path))
        assert isinstance(found, Failure)
        assert found.kind is FailureKind.NOT_A_MODEL, found.message


def test_an_unknown_operator_is_unsupported_and_named(tmp_path: Path, onnx_weight: np.ndarray) -> None:
    save_onnx(tmp_path / "odd.onnx", onnx_weight, batch=1, operator="Frobnicate")
    found = measure(request_for(tmp_path / "odd.onnx"))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.UNSUPPORTED
    assert "Frobnicate" in found.message


def test_samples_that_do_not_fit(onnx_file: Path) -> None:
    found = predict(request_for(onnx_file), np.zeros((2, 7), np.float32))
    assert isinstance(found, Failure)
    assert "[-1, 6]" in found.message and "[2, 7]" in found.message


def test_misuse_raises(onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no file"):
        measure(request_for(tmp_path / "absent.onnx"))
    with pytest.raises(BadInputError, match="float64"):
        predict(request_for(onnx_file), np.zeros((2, 6)))
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        compare(request_for(onnx_file), request_for(onnx_file), Rounds(count=0))


def test_an_accelerator_that_is_not_there(onnx_file: Path) -> None:
    request = BenchRequest(path=str(onnx_file), runtime=RuntimeName.ONNXRUNTIME, accelerator="cuda")
    for found in (
        measure(request),
        compare(request, request),
        predict(request, np.zeros((1, 6), np.float32)),
    ):
        assert isinstance(found, Failure)
        assert found.kind is FailureKind.UNSUPPORTED and "cuda" in found.message
