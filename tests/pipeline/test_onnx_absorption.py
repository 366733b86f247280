"""What converters from channels-last frameworks leave behind goes into the weights beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.compressor import compress
from pipeline.onnx_import import import_onnx
from pipeline.plan import CompressionPlan
from pipeline.tracing import trace

Weights = dict[str, np.ndarray]
RNG = np.random.default_rng(0)


def _normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


def _file(nodes: list[onnx.NodeProto], weights: Weights, path: Path, opset: int = 17) -> Path:
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 8, 8])
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [taken], [given], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def _imported(path: Path) -> tuple[torch.nn.Module, float]:
    """The module, and how far it is from ONNX Runtime at most."""
    x = RNG.normal(0, 1, (3, 2, 8, 8)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    module = import_onnx(path)
    with torch.no_grad():
        return module, float((module(torch.from_numpy(x)) - torch.from_numpy(wanted)).abs().max())


def _names(module: torch.nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module.children()]


def test_a_batch_norm_written_as_product_and_sum_goes_into_its_convolution(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Add", ["b", "m"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Squeeze", ["p", "axes"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    weights = {"w": _normal(6, 2, 3, 3), "s": _normal(6, 1, 1), "b": _normal(1, 6, 1, 1), "v": _normal(6, 4)}
    module, apart = _imported(_file(nodes, {**weights, "axes": np.array([2, 3])}, tmp_path / "net.onnx"))
    assert apart < 1e-5
    assert [name for name in _names(module) if not name.startswith("Onnx")] == [
        "Conv2d",
        "ReLU",
        "Flatten",
        "Linear",
    ]
    assert not list(module.buffers())
    assert [unit.prunable for unit in trace(module, (2, 8, 8)).units] == [True, False]


def test_a_batch_norm_behind_an_activation_prunes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["x1"]),
        helper.make_node("Add", ["x1", "zero"], ["x2"]),
        helper.make_node("Conv", ["x2", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Mul", ["r", "s"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Conv", ["a", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c2"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    weights = {
        "scale": np.array(0.25, np.float32),
        "zero": np.zeros((1, 1, 1, 1), np.float32),
        "w": _normal(6, 2, 3, 3),
        "s": _normal(1, 6, 1, 1),
        "b": _normal(1, 6, 1, 1),
        "w2": _normal(5, 6, 3, 3),
        "v": _normal(320, 4),
    }
    module, apart = _imported(_file(nodes, weights, tmp_path / "net.onnx"))
    assert apart < 1e-5
    assert _names(module) == ["Conv2d", "ReLU", "Conv2d", "Conv2d", "Flatten", "Linear"]
    assert [unit.prunable for unit in trace(module, (2, 8, 8)).units] == [True, True, False]


def test_constants_before_a_linear_layer_go_into_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Mul", ["r", "s"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    weights = {"w": _normal(128, 7), "s": _normal(7), "b": _normal(7), "v": _normal(7, 4)}
    module, apart = _imported(_file(nodes, weights, tmp_path / "net.onnx"))
    assert apart < 1e-5
    assert _names(module) == ["Flatten", "Linear", "ReLU", "Linear"]


def test_channels_flattened_last_are_cut_by_their_own_columns(tmp_path: Path) -> None:
    """Without channels 1 and 3 the model gives what it gave with those channels at zero."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    w, v = _normal(6, 2, 3, 3), _normal(4, 4, 6, 4)
    # Magnitude, which looks at both layers, ranks these two last.
    w[[1, 3]] *= 1e-3
    v[:, :, [1, 3]] *= 1e-3
    weights = {"w": w, "v": v.reshape(96, 4), "flat": np.array([-1, 96])}
    module, apart = _imported(_file(nodes, weights, tmp_path / "net.onnx"))
    assert apart < 1e-5
    assert _names(module) == ["Conv2d", "Flatten", "Linear"]
    graph = trace(module, (2, 8, 8))
    plan = CompressionPlan.model_validate({"units": {graph.units[0].name: {"keep_ratio": 4 / 6}}})
    cut = compress(module, graph, plan)
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in module.parameters())
        assert torch.allclose(cut(x), module(x), atol=1e-4)


def test_an_order_that_cannot_be_followed_is_not_pruned(tmp_path: Path) -> None:
    """An activation stands between the flattening and the layer: the columns stay, and so do the channels."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "flat"], ["f"]),
        helper.make_node("Tanh", ["f"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    weights = {"w": _normal(6, 2, 3, 3), "v": _normal(216, 4), "flat": np.array([-1, 216])}
    module, apart = _imported(_file(nodes, weights, tmp_path / "net.onnx"))
    assert apart < 1e-5
    assert [unit.prunable for unit in trace(module, (2, 8, 8)).units] == [False, False]


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_pads_and_global_maxima_come_in(opset: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["c"]),
        helper.make_node("GlobalMaxPool", ["c"], ["g"]),
        helper.make_node("Reshape", ["g", "one"], ["o"]),
        helper.make_node("GlobalAveragePool", ["o"], ["q"]),
        helper.make_node("Flatten", ["q"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    weights = {"w": _normal(6, 2, 3, 3), "v": _normal(6, 4), "pads": np.array([0, 0, 0, 1, 0, 0, 1, 1])}
    weights |= {"one": np.array([-1, 6, 1, 1])}
    module, apart = _imported(_file(nodes, weights, tmp_path / "net.onnx", opset))
    assert apart < 1e-5
    assert "StaticReshape" not in _names(module)


def test_rows_of_a_batch_stay_rows(tmp_path: Path) -> None:
    """A reshape whose first size is a multiple of the batch is no flattening."""
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "back"], ["b"]),
        helper.make_node("ReduceMean", ["b"], ["y"], axes=[1], keepdims=0),
    ]
    weights = {"rows": np.array([-1, 8]), "w": _normal(8, 4), "back": np.array([-1, 16, 4])}
    _, apart = _imported(_file(nodes, weights, tmp_path / "net.onnx"))
    assert apart < 1e-5
