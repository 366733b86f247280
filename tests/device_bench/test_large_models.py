"""Models of a few bytes that ask for more memory than there is, and others that are odd but legal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_cases import request_for, save_onnx

from device_bench.local import measure
from device_bench.protocol import Failure, FailureKind, Measurement

SIDE = 1 << 19  # SIDE × SIDE float32 is 1 TiB


def build(path: Path, nodes: list[object], inputs: dict[str, list[int]], weights: list[object]) -> Path:
    """An ONNX file that returns `y`, of no declared shape."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def declared(path: Path) -> Path:
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE], raw_data=b"")
    return build(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, SIDE]}, [weight])


def expanded(path: Path) -> Path:
    from onnx import helper, numpy_helper

    shape = numpy_helper.from_array(np.array([SIDE, SIDE], np.int64), "shape")
    return build(path, [helper.make_node("Expand", ["x", "shape"], ["y"])], {"x": [1, 1]}, [shape])


def fed(path: Path) -> Path:
    from onnx import helper

    return build(path, [helper.make_node("Relu", ["x"], ["y"])], {"x": [SIDE, SIDE]}, [])


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (declared, FailureKind.NOT_A_MODEL),  # ONNX Runtime says so before it allocates
        (expanded, FailureKind.OUT_OF_MEMORY),
        (fed, FailureKind.OUT_OF_MEMORY),
    ],
)
def test_a_tebibyte(tmp_path: Path, onnx_file: Path, make: object, kind: FailureKind) -> None:
    assert callable(make)
    found = measure(request_for(make(tmp_path / "large.onnx")))
    assert isinstance(found, Failure)
    assert found.kind is kind, found
    assert isinstance(measure(request_for(onnx_file)), Measurement)


def test_weights_that_are_no_numbers_are_measured_with_a_warning(tmp_path: Path) -> None:
    save_onnx(tmp_path / "nan.onnx", np.full((6, 5), np.nan, np.float32), batch=1)
    found = measure(request_for(tmp_path / "nan.onnx"))
    assert isinstance(found, Measurement)
    assert any("5 of 5 values of output 'y' are NaN" in warning for warning in found.warnings)


def test_a_model_of_several_inputs_is_measured(tmp_path: Path) -> None:
    from onnx import helper

    path = build(
        tmp_path / "two.onnx",
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": [1, 4], "b": [3, 1]},
        [],
    )
    found = measure(request_for(path))
    assert isinstance(found, Measurement)
    assert [info.name for info in found.inputs] == ["a", "b"]
