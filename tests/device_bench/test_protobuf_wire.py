"""Node names read from ONNX files without the onnx package, against that package."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from device_bench.runtimes.protobuf_wire import chain_of_max, read_nodes


def test_nodes_are_those_that_onnx_reads(tflite_folder: Path) -> None:
    path = tflite_folder / "float.onnx"
    expected = onnx.load(path).graph.node
    found = read_nodes(path.read_bytes())
    assert len(found) == len(expected) > 3
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.name, ours.operator) == (theirs.name, theirs.op_type)
        assert ours.inputs == tuple(name for name in theirs.input if name)
        assert ours.outputs == tuple(theirs.output)


def test_a_chain_is_a_valid_model() -> None:
    model = onnx.load_from_string(chain_of_max(3, 9))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Max"] * 3
    assert all(len(node.input) == 9 for node in model.graph.node)
    assert model.graph.node[2].input[0] == model.graph.node[1].output[0]
    assert model.graph.output[0].name == model.graph.node[2].output[0]


def test_what_is_no_protobuf_is_said() -> None:
    with pytest.raises(ValueError, match="no protobuf"):
        read_nodes(b"\x0c\x0c")
