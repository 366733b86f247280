"""Cuts runs of operators out of a TFLite file into files of their own.

The schema's classes come with `ai_edge_litert`; boards with another interpreter lack them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from device_bench.protocol import FailureKind
from device_bench.runtimes.base import RuntimeFailure

_IDENTIFIER = b"TFL3"


class Operator(NamedTuple):
    """One operator of a file's main subgraph: what it is, and the tensors that it reads and makes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class TfliteFile:
    """A TFLite file as the schema's objects.

    Raises:
        RuntimeFailure: the schema's classes are not installed, or the file has more than one subgraph.
    """

    def __init__(self, content: bytes) -> None:
        self._schema = _schema()
        self._model = self._schema.ModelT.InitFromPackedBuf(content, 0)
        if len(self._model.subgraphs) != 1:
            raise RuntimeFailure(
                FailureKind.UNSUPPORTED,
                f"the file has {len(self._model.subgraphs)} subgraphs (a loop or a branch): there is no "
                "profile of such; export it without",
            )
        for buffer in self._model.buffers:
            # Writers may put buffers behind the flatbuffer; packing would leave them there and lose them.
            if buffer.offset > 1:
                buffer.data = np.frombuffer(content, np.uint8, count=buffer.size, offset=buffer.offset)
                buffer.offset = buffer.size = 0
        self._graph = self._model.subgraphs[0]

    def operators(self) -> list[Operator]:
        """The operators in the order of the run."""
        kinds = vars(self._schema.BuiltinOperator).items()
        names = {value: name for name, value in kinds if isinstance(value, int)}
        return [
            Operator(names[self._code(operator)], self._names(operator.inputs), self._names(operator.outputs))
            for operator in self._graph.operators
        ]

    def cut(self, start: int, stop: int) -> bytes:
        """A file of the operators from `start` up to `stop`, constants and quantization kept.

        Its inputs are what these operators read and do not make, its outputs what they make and do not read.
        """
        chosen = self._graph.operators[start:stop]
        made = {int(i) for operator in chosen for i in operator.outputs}
        read = {int(i) for operator in chosen for i in operator.inputs if i >= 0}
        used = sorted(made | read)
        place = {old: new for new, old in enumerate(used)}
        model = copy.copy(self._model)
        model.buffers, model.metadata, model.signatureDefs = [self._schema.BufferT()], None, None
        graph = copy.copy(self._graph)
        graph.tensors = [self._tensor(old, model.buffers) for old in used]
        graph.operators = [self._operator(operator, place) for operator in chosen]
        graph.inputs = _indices(place[i] for i in sorted(read - made) if not self._is_constant(i))
        graph.outputs = _indices(place[i] for i in sorted(made - read))
        model.subgraphs = [graph]
        return self._pack(model)

    def _tensor(self, index: int, buffers: list[Any]) -> Any:
        tensor = copy.copy(self._graph.tensors[index])
        # An open batch is measured as it is stored, which is one sample.
        tensor.shapeSignature = None
        if self._is_constant(index):
            buffers.append(self._model.buffers[tensor.buffer])
            tensor.buffer = len(buffers) - 1
        else:
            tensor.buffer = 0
        return tensor

    def _operator(self, operator: Any, place: dict[int, int]) -> Any:
        moved = copy.copy(operator)
        moved.inputs = _indices(place.get(int(i), -1) for i in operator.inputs)
        moved.outputs = _indices(place[int(i)] for i in operator.outputs)
        return moved

    def _is_constant(self, index: int) -> bool:
        data = self._model.buffers[self._graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def _code(self, operator: Any) -> int:
        code = self._model.operatorCodes[operator.opcodeIndex]
        # Codes above 127 did not fit the schema's first field; readers take the larger of the two.
        return int(max(code.builtinCode, code.deprecatedBuiltinCode))

    def _names(self, indices: Sequence[int]) -> tuple[str, ...]:
        return tuple(self._graph.tensors[i].name.decode(errors="replace") for i in indices if i >= 0)

    def _pack(self, model: Any) -> bytes:
        builder = import_module("flatbuffers").Builder(1 << 16)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())


def nearly_nothing() -> bytes:
    """A file of one operator that does nearly nothing: the larger of each of one float32 and 0.

    Raises:
        RuntimeFailure: the schema's classes are not installed.
    """
    schema = _schema()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    tensors = []
    for name in (b"given", b"made"):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, schema.TensorType.FLOAT32, 0
        tensor.shape = np.array([1], np.int32)
        tensors.append(tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, _indices([0]), _indices([1])
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, [operator]
    graph.inputs, graph.outputs = _indices([0]), _indices([1])
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = import_module("flatbuffers").Builder(1 << 10)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _schema() -> Any:
    try:
        return import_module("ai_edge_litert.schema_py_generated")
    except ModuleNotFoundError as error:
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            "a profile of a TFLite file takes it apart by the schema that ai-edge-litert brings, which is "
            'not installed; install it with: pip install "edgeloop[litert]"',
        ) from error


def _indices(values: Any) -> Any:
    return np.array(list(values), np.int32)
