"""Compiled LiteRT models. Without a GPU, the CPU stands in for it behind the same interface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device_bench.protocol import FailureKind, TensorInfo
from device_bench.runtimes import litert, litert_gpu
from device_bench.runtimes.base import LoadOptions, NoAccelerator, RuntimeFailure

compiled_model = pytest.importorskip("ai_edge_litert.compiled_model")


class CpuInstead:
    """The library with a GPU that is the CPU, and that takes all of a file, a part or nothing."""

    HardwareAccelerator = SimpleNamespace(GPU="the GPU")

    def __init__(self, takes: str = "all") -> None:
        self._takes = takes
        self.CompiledModel = SimpleNamespace(from_file=self._from_file)

    def _from_file(self, path: str, hardware_accel: str) -> Any:
        assert hardware_accel == "the GPU"
        if self._takes == "nothing":
            raise RuntimeError("operator FOO is not the GPU's")
        made = compiled_model.CompiledModel.from_file(
            path, hardware_accel=compiled_model.HardwareAccelerator.CPU
        )
        made.is_fully_accelerated = lambda: self._takes == "all"
        return made


def described(path: Path) -> dict[str, TensorInfo]:
    model = litert.load(path, LoadOptions())
    return {info.name: info for info in (*model.inputs, *model.outputs)}


@pytest.mark.parametrize("name", ["float", "int8"])
def test_it_computes_what_the_interpreter_computes(tflite_folder: Path, name: str) -> None:
    path = tflite_folder / f"{name}.tflite"
    model = litert_gpu.load(path, described(path), CpuInstead())
    plain = litert.load(path, LoadOptions())
    assert (model.inputs, model.outputs) == (plain.inputs, plain.outputs)
    rng = np.random.default_rng(0)
    for _ in range(2):
        array = (10 * rng.standard_normal(model.inputs[0].shape)).astype(model.inputs[0].dtype)
        for each in (model, plain):
            each.set_inputs([array])
            each.invoke()
        (found,), (expected,) = model.read_outputs(), plain.read_outputs()
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert np.abs(found.astype(np.float64) - expected).max() < 1e-5
    assert model.notes == ()


@pytest.mark.parametrize(("takes", "words"), [("nothing", "operator FOO"), ("a part", "took a part")])
def test_nothing_falls_back_unseen(tflite_folder: Path, takes: str, words: str) -> None:
    path = tflite_folder / "float.tflite"
    with pytest.raises(RuntimeFailure, match=words) as caught:
        litert_gpu.load(path, described(path), CpuInstead(takes))
    assert caught.value.kind is FailureKind.UNSUPPORTED


def test_an_open_size_is_refused(tflite_folder: Path) -> None:
    path = tflite_folder / "float.tflite"
    infos = {
        name: info.model_copy(update={"shape": (-1, *info.shape[1:])})
        for name, info in described(path).items()
    }
    with pytest.raises(RuntimeFailure, match="open size"):
        litert_gpu.load(path, infos, CpuInstead())


def test_the_probe_tells_the_truth(tmp_path: Path, tflite_folder: Path) -> None:
    # The model is sound: only the hardware decides.
    (tmp_path / "smallest.tflite").write_bytes(litert_gpu.smallest_model())
    model = litert.load(tmp_path / "smallest.tflite", LoadOptions())
    model.set_inputs([np.array([[-1, 0, 1, 2]], np.float32)])
    model.invoke()
    assert model.read_outputs()[0].tolist() == [[0, 0, 1, 2]]
    usable = litert_gpu.is_usable()
    assert ("gpu" in litert.accelerators()) == usable
    if not usable:
        with pytest.raises(NoAccelerator):
            litert.load(tflite_folder / "float.tflite", LoadOptions(accelerator="gpu"))


def test_a_probe_that_dies_means_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def died(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        assert command[0] == sys.executable
        return subprocess.CompletedProcess(command, -11)

    litert_gpu.is_usable.cache_clear()
    monkeypatch.setattr(litert_gpu.subprocess, "run", died)
    assert not litert_gpu.is_usable()
    litert_gpu.is_usable.cache_clear()
