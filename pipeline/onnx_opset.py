"""Bringing an ONNX model to the opset that onnx2torch reads, past what onnx's own converter refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

# onnx2torch knows operators as opset 17 has them; files are brought to it, up or down.
OPSET = 17
# Operators that the converter cannot bring down although their meaning never changed, or that opset 17 lacks,
# wait in a domain of their own, which the converter passes over.
# No dot in it: onnx2torch puts it into module names.
ASIDE = "aside"


def at_opset_17(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in opset 17, but for operators of domain `ASIDE`, which `register_aside` can read.

    Raises:
        RuntimeError: the converter of onnx refuses; the message names the operator.
    """
    import onnx
    from onnx import helper, version_converter

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in copy.graph.initializer}
    for node in copy.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Reshape":
            _drop_allowzero_(node, constants)
        # Pad's fourth input, axes, came with opset 18; without it nothing changed since opset 13.
        elif node.op_type == "Gelu" or (node.op_type == "Pad" and len([n for n in node.input if n]) <= 3):
            node.domain = ASIDE
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    if any(node.domain == ASIDE for node in copy.graph.node):
        copy.opset_import.append(helper.make_opsetid(ASIDE, 1))
    if opset != OPSET:
        copy = version_converter.convert_version(copy, OPSET)
    for node in copy.graph.node:
        # Back where it belongs: the shapes behind an operator of another domain are not inferred.
        if node.domain == ASIDE and node.op_type == "Pad":
            node.domain = ""
        elif node.op_type == "GlobalMaxPool":
            # onnx2torch does not know it, and knows what it is short for.
            node.op_type = "ReduceMax"
            node.attribute.append(helper.make_attribute("axes", [2, 3]))
    return copy


def register_aside() -> None:
    """Teach onnx2torch to read the operators of domain `ASIDE`; doing it again changes nothing."""
    from onnx2torch.node_converters.registry import add_converter, get_converter
    from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node
    from torch import nn

    try:
        get_converter(operation_type="Gelu", version=1, domain=ASIDE)
        return
    except NotImplementedError:
        pass

    def gelu(node: Any, graph: Any) -> Any:
        module = nn.GELU(approximate=node.attributes.get("approximate", "none"))
        return OperationConverterResult(torch_module=module, onnx_mapping=onnx_mapping_from_node(node))

    add_converter(operation_type="Gelu", version=1, domain=ASIDE)(gelu)


def _drop_allowzero_(node: onnx.NodeProto, constants: dict[str, Any]) -> None:
    """Without a zero in the shape, `allowzero` says nothing; onnx2torch refuses it all the same."""
    shape = constants.get(node.input[1])
    if shape is not None and (shape != 0).all():
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
