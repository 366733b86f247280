"""Batches, padding and conversion over a model that is plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from device_bench.prediction import predict, predict_file
from device_bench.protocol import FailureKind, TensorInfo
from device_bench.runtimes.base import Array, RuntimeFailure


class Doubler:
    """Doubles its input, as integers where the tensors are integers; notes the batches it got."""

    arena_bytes = None
    operators = None

    def __init__(self, source: TensorInfo, sink: TensorInfo) -> None:
        self.inputs = (source,)
        self.outputs = (sink,)
        self.batches: list[int] = []
        self._array: Array = np.zeros(0)

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        (self._array,) = arrays

    def invoke(self) -> None:
        self.batches.append(len(self._array))

    def read_outputs(self) -> list[Array]:
        return [self._array * np.asarray(2, self._array.dtype)]


def real(batch: int) -> Doubler:
    return Doubler(
        TensorInfo(name="x", shape=(batch, 3), dtype="float32"),
        TensorInfo(name="y", shape=(batch, 3), dtype="float32"),
    )


SAMPLES = np.random.default_rng(0).uniform(-1, 1, (600, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("batch", "batches"), [(-1, [256, 256, 88]), (1, [1] * 600), (256, [256, 256, 256])], ids=str
)
def test_every_sample_is_run_once_in_order(batch: int, batches: list[int]) -> None:
    model = real(batch)
    assert np.array_equal(predict(model, SAMPLES), 2 * SAMPLES)
    assert model.batches == batches


def test_integers_are_converted_both_ways() -> None:
    source = TensorInfo(name="x", shape=(1, 3), dtype="int8", scale=1 / 60, zero_point=0)
    sink = TensorInfo(name="y", shape=(1, 3), dtype="int8", scale=1 / 30, zero_point=1)
    found = predict(Doubler(source, sink), SAMPLES)
    expected = (2 * np.rint(SAMPLES * 60) - 1) / 30
    assert np.abs(found - expected).max() < 1e-6


def test_files(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", SAMPLES)
    assert predict_file(real(-1), tmp_path / "in.npy", tmp_path / "out.npy") == 600
    assert np.array_equal(np.load(tmp_path / "out.npy", allow_pickle=False), 2 * SAMPLES)


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 1), (5,)], ids=str)
def test_samples_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeFailure, match=r"x float32\[1, 3\]"):
        predict(real(1), np.zeros(shape, np.float32))


def test_several_inputs_are_refused() -> None:
    model = real(1)
    model.inputs = model.inputs * 2
    with pytest.raises(RuntimeFailure, match="exactly one input; this one has 2: x"):
        predict(model, SAMPLES)


def test_samples_that_are_no_numbers_are_refused() -> None:
    samples = SAMPLES.copy()
    samples[300, 1] = np.nan
    samples[599] = np.inf
    with pytest.raises(RuntimeFailure, match=r"4 of 1800 values .* the first in sample 300") as caught:
        predict(real(-1), samples)
    assert caught.value.kind is FailureKind.BAD_INPUT


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (np.zeros((2, 3)), "got float64"),
        (np.zeros((0, 3), np.float32), "at least 1"),
        (np.float32(1), r"shape \[\]"),
        (b"", "no .npy file"),
        (b"\x93NUMPY" + b"\xff" * 40, "no .npy file"),
        (np.array([{"a": 1}]), "no .npy file"),
    ],
    ids=str,
)
def test_a_file_of_samples_that_is_none(tmp_path: Path, stored: object, words: str) -> None:
    path = tmp_path / "in.npy"
    if isinstance(stored, bytes):
        path.write_bytes(stored)
    else:
        np.save(path, stored, allow_pickle=True)
    with pytest.raises(RuntimeFailure, match=words) as caught:
        predict_file(real(-1), path, tmp_path / "out.npy")
    assert caught.value.kind is FailureKind.BAD_INPUT


def test_an_archive_of_samples_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", samples=SAMPLES)
    with pytest.raises(RuntimeFailure, match="archive"):
        predict_file(real(-1), tmp_path / "in.npz", tmp_path / "out.npy")
