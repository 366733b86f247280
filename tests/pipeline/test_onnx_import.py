from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import ModelError
from pipeline.model import load_model
from pipeline.onnx_import import import_onnx, onnx_input_shape
from pipeline.task import ModelSpec
from pipeline.tracing import trace
from pipeline.zoo import build

BATCH = torch.export.Dim("batch")


def _export(name: str, shape: tuple[int, ...], path: Path, dynamic: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(name, shape, 10).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            model,
            (torch.randn(2 if dynamic else 1, *shape),),
            path,
            dynamo=True,
            dynamic_shapes=({0: BATCH},) if dynamic else None,
            external_data=False,
            verbose=False,
        )
    return model


def _graph(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    path: Path,
    opset: int = 17,
    batch: object = "n",
) -> Path:
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 8, 8])
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [taken], [given], tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


MATRIX = np.random.default_rng(0).normal(0, 0.1, (64, 10)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "shape", "prunable"),
    [("cnn", (1, 8, 8), 5), ("resnet20", (3, 32, 32), 12), ("vit", (1, 8, 8), 4)],
)
def test_a_round_trip_gives_the_same_and_prunes(
    name: str, shape: tuple[int, ...], prunable: int, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    original = _export(name, shape, path)
    assert onnx_input_shape(path) == shape
    imported = load_model(ModelSpec(source=str(path), input_shape=shape, outputs=10))
    x = torch.randn(5, *shape)
    with torch.no_grad():
        assert torch.allclose(imported(x), original(x), atol=1e-4, rtol=1e-3)
        program = torch.export.export(imported, (x,), dynamic_shapes=({0: BATCH},))
        assert torch.allclose(program.module()(x[:3]), original(x[:3]), atol=1e-4, rtol=1e-3)
    assert sum(unit.prunable for unit in trace(imported, shape).units) == prunable
    state = imported.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


def test_a_file_for_one_sample_takes_a_batch(tmp_path: Path) -> None:
    """An MLP exported for one sample has that one in a Reshape's sizes."""
    path = tmp_path / "mlp.onnx"
    original = _export("mlp", (1, 8, 8), path, dynamic=False)
    x = torch.randn(4, 1, 8, 8)
    assert torch.allclose(import_onnx(path)(x), original(x), atol=1e-4)


def test_sizes_computed_from_the_batch_become_numbers(tmp_path: Path) -> None:
    """`x.view(x.size(0), -1) @ w + b`, as the older exporter writes it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["first"], axis=0),
        helper.make_node("Unsqueeze", ["first", "axis"], ["rows"]),
        helper.make_node("Concat", ["rows", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["x", "sizes"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["y"]),
    ]
    weights = {
        "zero": np.array(0),
        "axis": np.array([0]),
        "rest": np.array([-1]),
        "w": MATRIX,
        "b": np.arange(10, dtype=np.float32),
    }
    module = import_onnx(_graph(nodes, weights, tmp_path / "flat.onnx"))
    x = torch.randn(3, 1, 8, 8)
    assert torch.allclose(module(x), x.flatten(1) @ torch.tensor(MATRIX) + torch.arange(10), atol=1e-5)
    assert [type(layer).__name__ for layer in module.children()] == ["Flatten", "Linear"]
    assert {name.rpartition(".")[2] for name, _ in module.named_parameters()} == {"weight", "bias"}
    assert not list(module.buffers())


def test_slices_and_pads_keep_their_meaning(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["part"]),
        helper.make_node("Pad", ["part", "pads", "value"], ["padded"]),
        helper.make_node("Flatten", ["padded"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    weights = {
        "starts": np.array([1, -3]),
        "ends": np.array([2**62, -1]),
        "axes": np.array([2, -1]),
        "steps": np.array([3, 1]),
        "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
        "value": np.array(0.5, np.float32),
        "w": MATRIX[:20],
    }
    module = import_onnx(_graph(nodes, weights, tmp_path / "slice.onnx", opset=18))
    x = torch.randn(3, 1, 8, 8)
    part = torch.nn.functional.pad(x[:, :, 1::3, -3:-1], (2, 1, 1, 0), value=0.5)
    assert part.shape == (3, 1, 4, 5)
    assert torch.allclose(module(x), part.flatten(1) @ torch.tensor(MATRIX[:20]), atol=1e-5)


@pytest.mark.parametrize("domain", ["", "com.example"])
def test_an_unsupported_operator_is_named(domain: str, tmp_path: Path) -> None:
    operator = "Det" if not domain else "Sparkle"
    nodes = [
        helper.make_node(operator, ["x"], ["d"], domain=domain),
        helper.make_node("Identity", ["d"], ["y"]),
    ]
    with pytest.raises(
        ModelError, match=rf"operator (com.example.)?{operator} \(version \d+\) is not supported"
    ):
        import_onnx(_graph(nodes, {}, tmp_path / "odd.onnx"))


def test_an_operator_younger_than_the_converter_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Mish", ["x"], ["y"])
    with pytest.raises(ModelError, match=r"cannot be brought to opset 17.*Mish"):
        import_onnx(_graph([node], {}, tmp_path / "mish.onnx", opset=18))


def test_truncated_missing_and_foreign_files(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    path = _graph(nodes, {"w": MATRIX}, tmp_path / "model.onnx")
    whole = path.read_bytes()
    for size in (len(whole) // 2, 40, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"model.onnx is (truncated|damaged)"):
            import_onnx(path)
    path.write_text("this is no protocol buffer")
    with pytest.raises(ModelError, match=r"model.onnx is truncated or no ONNX file"):
        onnx_input_shape(path)
    with pytest.raises(ModelError, match="does not exist"):
        import_onnx(tmp_path / "none.onnx")


def test_weights_kept_elsewhere_must_be_there(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    path = _graph(nodes, {"w": MATRIX}, tmp_path / "model.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0)
    x = torch.randn(2, 1, 8, 8)
    assert torch.allclose(import_onnx(path)(x), x.flatten(1) @ torch.tensor(MATRIX), atol=1e-5)
    (tmp_path / "w.data").unlink()
    with pytest.raises(ModelError, match=r"keeps weights in other files.*w.data"):
        import_onnx(path)


def test_models_of_another_form(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    path = _graph(nodes, {"w": MATRIX}, tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ["n", 64]))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="1 inputs and 2 outputs"):
        onnx_input_shape(path)
    del model.graph.output[1]
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "width"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"'x' of shape \[n, 1, 8, width\].*must be fixed"):
        onnx_input_shape(path)


def test_a_model_that_mixes_samples_is_refused(tmp_path: Path) -> None:
    """Sizes that fix the batch in a way that no batch can follow."""
    nodes = [
        helper.make_node("Reshape", ["x", "sizes"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["p"]),
        helper.make_node("ReduceMean", ["p"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["p", "m"], ["y"]),
    ]
    weights = {"sizes": np.array([2, 64]), "w": MATRIX}
    with pytest.raises(ModelError, match="mixes the samples of a batch"):
        import_onnx(_graph(nodes, weights, tmp_path / "mixed.onnx", batch=2))
