"""Every runtime passes the same suite, over the same net."""

from __future__ import annotations

from pathlib import Path

import pytest
from runtime_suite import RuntimeSuite

from device_bench.protocol import RuntimeName


@pytest.fixture
def net(tflite_folder: Path) -> Path:
    return tflite_folder


class TestOnnxRuntime(RuntimeSuite):
    name = RuntimeName.ONNXRUNTIME
    file = "float.onnx"


class TestLiteRt(RuntimeSuite):
    name = RuntimeName.LITERT
    file = "float.tflite"


class TestLiteRtPlain(RuntimeSuite):
    name = RuntimeName.LITERT
    file = "float.tflite"
    accelerator = "cpu-plain"


class TestTorch(RuntimeSuite):
    name = RuntimeName.TORCH
    file = "float.pt2"
