"""The few lines of protobuf that it takes to read node names from an ONNX file and to write a tiny one.

Boards have ONNX Runtime without the onnx package. Field numbers are those of onnx.proto (IR version 8).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH, _GRAPH_NODE = 7, 1
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR = 1, 2, 3, 4
_FLOAT = 1


class Node(NamedTuple):
    """One node of a graph: its name and operator, and the tensors it reads and makes."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_nodes(model: bytes) -> list[Node]:
    """The nodes of an ONNX file's main graph, in the file's order."""
    found = []
    for number, graph in _fields(memoryview(model)):
        if number == _MODEL_GRAPH:
            found += [_node(content) for field, content in _fields(graph) if field == _GRAPH_NODE]
    return found


def chain_of_max(length: int, inputs: int) -> bytes:
    """An ONNX file of that many Max operators in a row, each of that many inputs, float32 [1, 1, 1, 1].

    Its input is "t0".
    """
    nodes = b"".join(
        _field(
            _GRAPH_NODE,
            _field(_NODE_INPUT, f"t{i}".encode()) * inputs
            + _field(_NODE_OUTPUT, f"t{i + 1}".encode())
            + _field(_NODE_NAME, f"maximum_of_one_value_{i}".encode())
            + _field(_NODE_OPERATOR, b"Max"),
        )
        for i in range(length)
    )
    graph = nodes + _field(2, b"chain") + _field(11, _value("t0")) + _field(12, _value(f"t{length}"))
    opset = _field(1, b"") + _number(2, 13)
    return _number(1, 8) + _field(_MODEL_GRAPH, graph) + _field(8, opset)


def _node(content: memoryview) -> Node:
    names: dict[int, list[str]] = {}
    for number, value in _fields(content):
        if number in (_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR):
            names.setdefault(number, []).append(bytes(value).decode(errors="replace"))
    return Node(
        name="".join(names.get(_NODE_NAME, [])),
        operator="".join(names.get(_NODE_OPERATOR, [])),
        inputs=tuple(name for name in names.get(_NODE_INPUT, []) if name),
        outputs=tuple(name for name in names.get(_NODE_OUTPUT, []) if name),
    )


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field that holds bytes; the others are passed over."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, position = _varint(content, position)
        elif kind == _BYTES:
            size, position = _varint(content, position)
            yield number, content[position : position + size]
            position += size
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no protobuf: field {number} is of kind {kind} at byte {position}")


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def _encoded(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


def _number(number: int, value: int) -> bytes:
    return _encoded(number << 3 | _VARINT) + _encoded(value)


def _field(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _value(name: str) -> bytes:
    """ValueInfoProto of a float32 [1, 1, 1, 1]."""
    shape = _field(1, _number(1, 1)) * 4
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, _FLOAT) + _field(2, shape)))
