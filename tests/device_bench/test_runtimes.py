"""What the runtimes' modules decide themselves, without a child process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device_bench.errors import MissingExtraError
from device_bench.protocol import RuntimeName
from device_bench.runtimes import MODULES, SUFFIXES, import_runtime, litert, onnxruntime
from device_bench.runtimes.base import LoadOptions, NoAccelerator


def test_every_runtime_has_a_module_with_its_functions() -> None:
    assert set(MODULES) == set(RuntimeName) == set(SUFFIXES.values())
    for module in MODULES.values():
        runtime = import_runtime(module)
        assert callable(runtime.version) and callable(runtime.accelerators) and callable(runtime.load)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"edgeloop\[onnxruntime\]"):
        onnxruntime.version()
    with pytest.raises(MissingExtraError, match=r"edgeloop\[litert\]"):
        litert.version()


class OldInterpreter:
    """The interpreter's form in tflite_runtime 2.14 and tf.lite: one int8 input [1, 2], batch open."""

    def __init__(
        self, model_path: str, num_threads: int, experimental_op_resolver_type: str = "auto"
    ) -> None:
        self.resolver = experimental_op_resolver_type
        self.size = (1, 2)
        self.allocations = 0

    def allocate_tensors(self) -> None:
        self.allocations += 1

    def get_input_details(self) -> list[dict[str, Any]]:
        return [self._details()]

    get_output_details = get_input_details

    def _details(self) -> dict[str, Any]:
        return {
            "name": "x",
            "index": 0,
            "shape": np.array([1, 2]),
            "shape_signature": np.array([-1, 2]),
            "dtype": np.int8,
            "quantization": (0.5, -1),
        }

    def resize_tensor_input(self, index: int, shape: Sequence[int], strict: bool) -> None:
        self.size = tuple(shape)

    def set_tensor(self, index: int, array: np.ndarray) -> None:
        assert array.shape == self.size
        self.array = array

    def get_tensor(self, index: int) -> np.ndarray:
        return self.array


def test_tflite_runtime_and_tensorflow_serve_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    old = ModuleType("tflite_runtime.interpreter")
    old.Interpreter = OldInterpreter  # type: ignore[attr-defined]
    old.OpResolverType = SimpleNamespace(  # type: ignore[attr-defined]
        AUTO="auto", BUILTIN_WITHOUT_DEFAULT_DELEGATES="plain"
    )
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", old)
    monkeypatch.setattr(litert, "distribution_version", lambda name: f"of {name}")
    assert litert.version() == "tflite-runtime of tflite-runtime"

    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    tensorflow = ModuleType("tensorflow")
    tensorflow.__version__ = "2.21.0"  # type: ignore[attr-defined]
    tensorflow.lite = SimpleNamespace(  # type: ignore[attr-defined]
        Interpreter=OldInterpreter, experimental=SimpleNamespace(OpResolverType=old.OpResolverType)
    )
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    assert litert.version() == "tensorflow 2.21.0"

    assert litert.accelerators() == ("cpu", "cpu-plain")
    plain = litert.load(Path("any.tflite"), LoadOptions(accelerator="cpu-plain"))
    assert isinstance(plain, litert.LiteRtModel)
    assert plain._interpreter.resolver == "plain"
    with pytest.raises(NoAccelerator):
        litert.load(Path("any.tflite"), LoadOptions(accelerator="gpu"))
    model = litert.load(Path("any.tflite"), LoadOptions())
    assert isinstance(model, litert.LiteRtModel)
    assert model._interpreter.resolver == "auto"
    assert model.inputs[0].model_dump(exclude={"schema_version"}) == {
        "name": "x",
        "shape": (-1, 2),
        "dtype": "int8",
        "scale": 0.5,
        "zero_point": -1,
    }
    assert model.placements == ()


def test_an_open_batch_is_resized_once() -> None:
    interpreter = OldInterpreter("any", 1)
    model = litert.LiteRtModel(interpreter)
    for _ in range(2):
        model.set_inputs([np.ones((5, 2), np.int8)])
    assert interpreter.size == (5, 2)
    assert interpreter.allocations == 1
    assert model.read_outputs()[0].shape == (5, 2)


def test_delegated_operators_are_those_between_the_delegates_ends() -> None:
    def node(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
        return {"op_name": name, "inputs": inputs, "outputs": outputs}

    nodes = [
        node("CONV_2D", [0, 1, -1], [2]),
        node("RELU", [2], [3]),
        node("CUSTOM", [3], [4]),
        node("ADD", [4, 3], [5]),
        node("DELEGATE", [0, 1], [3]),
        node("DELEGATE", [4, 3], [5]),
    ]
    assert litert.delegated_nodes(nodes) == {0, 1, 3}
    assert litert.delegated_nodes(nodes[:4]) == set()
