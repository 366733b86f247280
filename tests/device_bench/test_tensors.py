"""Random inputs and quantization against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from device_bench.protocol import TensorInfo
from device_bench.runtimes.base import RuntimeFailure
from device_bench.tensors import batch_size, dequantize, quantize, random_inputs


def info(
    shape: tuple[int, ...], dtype: str, scale: float | None = None, zero: int | None = None
) -> TensorInfo:
    return TensorInfo(name="t", shape=shape, dtype=dtype, scale=scale, zero_point=zero)


def test_quantize_worked_values() -> None:
    values = np.array([[-100.0, -0.25, 0.25, 0.75, 1.0, 100.0]], dtype=np.float32)
    found = quantize(values, info((1, 6), "int8", 0.5, 3))
    # Halves go to even: −0.5 → 0, 0.5 → 0, 1.5 → 2.
    assert found.dtype == np.int8
    assert found.tolist() == [[-128, 3, 3, 5, 5, 127]]
    assert quantize(values, info((1, 6), "uint8", 0.5, 3)).tolist() == [[0, 3, 3, 5, 5, 203]]


def test_dequantize_worked_values() -> None:
    found = dequantize(np.array([-128, 3, 127], dtype=np.int8), info((3,), "int8", 0.5, 3))
    assert found.dtype == np.float32
    assert found.tolist() == [-65.5, 0.0, 62.0]


def test_round_trip_errs_by_half_a_step() -> None:
    tensor = info((100,), "int8", 0.031, -7)
    values = np.random.default_rng(0).uniform(-3, 3, 100).astype(np.float32)
    assert np.abs(dequantize(quantize(values, tensor), tensor) - values).max() <= 0.031 / 2 + 1e-6


def test_floats_pass() -> None:
    values = np.array([1.5], dtype=np.float32)
    assert quantize(values, info((1,), "float16")).dtype == np.float16
    assert dequantize(np.array([1.5], dtype=np.float16), info((1,), "float16")).dtype == np.float32


def test_integers_without_a_scale_are_refused() -> None:
    with pytest.raises(RuntimeFailure, match="declares no scale"):
        quantize(np.zeros((1, 1), np.float32), info((1, 1), "int8"))
    with pytest.raises(RuntimeFailure, match="declares no scale"):
        dequantize(np.zeros((1, 1), np.int64), info((1, 1), "int64"))


def test_random_inputs_have_the_declared_forms() -> None:
    infos = [
        info((-1, 4), "float32"),
        info((2, 500), "int8", 0.1, 0),
        info((1, 50), "int64"),
        info((3,), "bool"),
    ]
    real, quantized, index, flag = random_inputs(infos, seed=1)
    assert real.shape == (1, 4) and real.dtype == np.float32
    assert quantized.dtype == np.int8 and quantized.min() < -100 and quantized.max() > 100
    assert index.dtype == np.int64 and set(np.unique(index)) == {0, 1}
    assert flag.dtype == np.bool_
    assert np.array_equal(random_inputs(infos, seed=1)[1], quantized)


def test_an_open_size_beside_the_batch_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="axis 1 open"):
        random_inputs([info((-1, -1), "float32")], seed=0)


def test_batches_are_the_files_own_or_large() -> None:
    assert batch_size(info((1, 3, 32, 32), "float32")) == 1
    assert batch_size(info((8, 3), "float32")) == 8
    assert batch_size(info((-1, 3, 32, 32), "float32")) == 256
    assert batch_size(info((-1, 3, 1024, 1024), "float32")) == 1
