"""Reading, editing and writing TFLite flatbuffers through the schema's object API."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from device_bench.errors import MissingExtraError
from device_bench.protocol import OperatorTime, TensorInfo
from exporters.base import ArtifactMetadata
from pipeline.errors import ExportError

METADATA_NAME = b"edgeloop"
FILE_IDENTIFIER = b"TFL3"


def schema() -> Any:
    """The generated classes of the TFLite schema."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingExtraError("ai_edge_litert", "litert") from error
    return schema_py_generated


def unpack(content: bytes | bytearray) -> Any:
    """The schema's `ModelT` of a file's bytes.

    Raises:
        ExportError: the bytes are no TFLite file.
    """
    if bytes(content[4:8]) != FILE_IDENTIFIER:
        raise ExportError("not a TFLite file: its identifier is missing or it is cut short")
    model = schema().ModelT.InitFromPackedBuf(bytes(content), 0)
    for buffer in model.buffers:
        # Writers may put buffers behind the flatbuffer; packing would leave them there and lose them.
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, count=buffer.size, offset=buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """A file's bytes of a `ModelT`."""
    import flatbuffers  # type: ignore[import-untyped]

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


def operator_names(model: Any) -> list[str]:
    """Type of each operator of the main subgraph, in order: "CONV_2D", "ADD" …"""
    kinds = {value: name for name, value in vars(schema().BuiltinOperator).items() if isinstance(value, int)}
    codes = model.operatorCodes
    return [
        # Codes above 127 did not fit the schema's first field; readers take the larger of the two.
        kinds[max(codes[op.opcodeIndex].builtinCode, codes[op.opcodeIndex].deprecatedBuiltinCode)]
        for op in model.subgraphs[0].operators
    ]


def operators_of(model: Any) -> list[OperatorTime]:
    """The operators of the main subgraph with the names of what they read and make, and no times."""
    graph = model.subgraphs[0]
    names = [tensor.name.decode(errors="replace") for tensor in graph.tensors]
    return [
        OperatorTime(
            name=str(position),
            operator=kind,
            ms=0.0,
            inputs=tuple(names[i] for i in operator.inputs if i >= 0),
            outputs=tuple(names[i] for i in operator.outputs),
        )
        for position, (operator, kind) in enumerate(zip(graph.operators, operator_names(model), strict=True))
    ]


def operator_counts(path: Path) -> Counter[str]:
    """How many operators of each type a TFLite file has."""
    return Counter(operator_names(unpack(path.read_bytes())))


def constant(model: Any, index: int) -> np.ndarray | None:
    """The value of a constant tensor, or None for an activation. float32 and int32 are read."""
    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data
    kinds = {schema().TensorType.FLOAT32: np.float32, schema().TensorType.INT32: np.int32}
    if data is None or len(data) == 0 or tensor.type not in kinds:
        return None
    return np.frombuffer(np.asarray(data, np.uint8).tobytes(), kinds[tensor.type]).reshape(tensor.shape)


def give_constant_(model: Any, index: int, value: np.ndarray) -> None:
    """Let a tensor hold `value`, in a buffer of its own: buffers may be shared."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = model.subgraphs[0].tensors[index]
    tensor.buffer = len(model.buffers) - 1
    tensor.shape = np.asarray(value.shape, np.int32)


def give_input_(model: Any, operator: Any, place: int, value: np.ndarray) -> None:
    """Let an operator's input be a constant of its own: tensors may be shared."""
    inputs = np.array(operator.inputs, np.int32)
    inputs[place] = add_copy_(model, int(inputs[place]))
    operator.inputs = inputs
    give_constant_(model, inputs[place], value)


def add_copy_(model: Any, index: int) -> int:
    """Add a tensor like that one under a name of its own, by which quantizers tell them apart; its index."""
    tensors = model.subgraphs[0].tensors
    tensor = copy.copy(tensors[index])
    tensor.name = tensor.name + b";%d" % len(tensors)
    tensors.append(tensor)
    return len(tensors) - 1


def float_operators(model: Any) -> tuple[str, ...]:
    """Operators of an INT8 model that compute in float, as "name (TYPE)"."""
    graph = model.subgraphs[0]
    stayed = []
    for operator, kind in zip(graph.operators, operator_names(model), strict=True):
        if kind in ("QUANTIZE", "DEQUANTIZE"):
            continue
        touched = [int(index) for index in [*operator.inputs, *operator.outputs] if index >= 0]
        if any(graph.tensors[index].type == schema().TensorType.FLOAT32 for index in touched):
            stayed.append(f"{short_name(graph.tensors[operator.outputs[0]].name)} ({kind})")
    return tuple(stayed)


def short_name(name: bytes) -> str:
    """The last module in a tensor's name; converters write the whole path of classes before it."""
    first = name.decode(errors="replace").split(";")[0]
    return first.split("/")[-1] or first


def set_metadata_(model: Any, metadata: ArtifactMetadata) -> None:
    """Put the metadata into a buffer of its own, which runtimes pass over."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(metadata.model_dump_json().encode(), np.uint8)
    model.buffers.append(buffer)
    entry = schema().MetadataT()
    entry.name = METADATA_NAME
    entry.buffer = len(model.buffers) - 1
    model.metadata = [m for m in model.metadata or [] if m.name != METADATA_NAME] + [entry]


def metadata_json(model: Any) -> str | None:
    """What `set_metadata_` wrote, or None."""
    for entry in model.metadata or []:
        if entry.name == METADATA_NAME:
            return bytes(np.asarray(model.buffers[entry.buffer].data, np.uint8)).decode()
    return None


def tensor_infos(model: Any, indices: Any) -> tuple[TensorInfo, ...]:
    """Tensors of the main subgraph as the file declares them."""
    kinds = {
        value: name.lower() for name, value in vars(schema().TensorType).items() if isinstance(value, int)
    }
    infos = []
    for index in indices:
        tensor = model.subgraphs[0].tensors[index]
        parameters = tensor.quantization
        quantized = parameters is not None and parameters.scale is not None and len(parameters.scale) == 1
        infos.append(
            TensorInfo(
                name=tensor.name.decode(errors="replace"),
                shape=tuple(int(size) for size in tensor.shape),
                dtype=kinds[tensor.type],
                scale=float(parameters.scale[0]) if quantized else None,
                zero_point=int(parameters.zeroPoint[0]) if quantized else None,
            )
        )
    return tuple(infos)
