"""Files made to do harm."""

from __future__ import annotations

import io
import zipfile

import numpy as np

HUGE = 1 << 40


def onnx_of(node: object, shape: list[int], initializers: list[object], out: list[object]) -> bytes:
    """A model of one node from x to y."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [node],
        "harm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def onnx_huge_input() -> bytes:
    """x float32 [1, 2⁴⁰]: random inputs for it would take 4 TiB."""
    from onnx import helper

    return onnx_of(helper.make_node("Relu", ["x"], ["y"]), [1, HUGE], [], [1, HUGE])


def onnx_huge_weight() -> bytes:
    """A weight that declares 2⁴⁰ numbers and brings one."""
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, HUGE], raw_data=b"\0\0\0\0")
    return onnx_of(helper.make_node("MatMul", ["x", "w"], ["y"]), [1, 4], [weight], [1, HUGE])


def onnx_huge_middle() -> bytes:
    """A few bytes that expand to 2⁴⁰ numbers when they are run."""
    from onnx import helper, numpy_helper

    target = numpy_helper.from_array(np.array([HUGE, 4], dtype=np.int64), "shape")
    return onnx_of(helper.make_node("Expand", ["x", "shape"], ["y"]), [1, 4], [target], [HUGE, 4])


def onnx_outside(location: str) -> bytes:
    """A model whose weight is said to lie in another file."""
    from onnx import StringStringEntryProto, TensorProto, helper

    weight = TensorProto(
        name="w",
        data_type=TensorProto.FLOAT,
        dims=[4, 4],
        data_location=TensorProto.EXTERNAL,
        external_data=[StringStringEntryProto(key="location", value=location)],
    )
    return onnx_of(helper.make_node("MatMul", ["x", "w"], ["y"]), [1, 4], [weight], [1, 4])


def tflite_huge() -> bytes:
    """One RELU over float32 [1, 2³⁰, 1024]: 4 TiB in and 4 TiB out."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str) -> object:
        made = schema.TensorT()
        made.shape, made.name, made.type, made.buffer = [1, 1 << 30, 1024], name, schema.TensorType.FLOAT32, 0
        return made

    graph, operator, code, model = (
        schema.SubGraphT(),
        schema.OperatorT(),
        schema.OperatorCodeT(),
        schema.ModelT(),
    )
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph.tensors, graph.inputs, graph.outputs = [tensor("x"), tensor("y")], [0], [1]
    graph.operators = [operator]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def zip_bomb() -> bytes:
    """64 MiB of zeros in 64 KiB, named like the array of an .npz file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", bytes(64 << 20))
    return file.getvalue()


def npy_that_says(shape: tuple[int, ...], descr: str = "<f4", content: bytes = bytes(16)) -> bytes:
    """An .npy file whose header promises more than it brings."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + content
