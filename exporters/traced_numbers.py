"""Puts the numbers that follow from a pruned copy's widths into the graph of the original.

Amounts of padding and sizes of reshapes are matched call by call. Other numbers are matched by module: where
the original's code passed 16 and the copy's code passes 12, every constant 16 that its operators read
becomes 12. If the same 16 stayed 16 elsewhere in the module the case is ambiguous, and the caller is told.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Any

import numpy as np

from exporters.recording import Call

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
PADS = ("pad", "constant_pad_nd")
VIEWS = ("view", "reshape", "flatten", "unflatten")
# Functions whose exported form holds their outputs' sizes though the code may not have passed them.
SIZED = ("expand", "expand_as", "chunk", "split", "tensor_split", "repeat")


def scopes_of(node: Any) -> tuple[str, ...]:
    """Names of the modules whose code a node stems from, outermost first, the node's own name last."""
    for entry in node.metadata_props:
        if entry.key == SCOPES_KEY:
            return tuple(str(name) for name in ast.literal_eval(entry.value))
    return ()


def patch_numbers_(
    model: Any,
    before: dict[str, tuple[Call, ...]],
    after: dict[str, tuple[Call, ...]],
    removed: Collection[str],
) -> None:
    """Replace the numbers that differ between two recordings in the constants of the modules they came from.

    Raises:
        ValueError: the recordings do not match call by call, or a number is ambiguous; says where.
    """
    gone = tuple(removed)
    for scope, calls in before.items():
        if any(scope == block or scope.startswith(f"{block}.") for block in gone):
            continue
        now = after.get(scope, ())
        if [call.function for call in calls] != [call.function for call in now]:
            raise ValueError(f"module {scope!r} calls other functions than when it was traced")
        if calls != now:
            _patch_scope_(model, scope, calls, now)


def _patch_scope_(model: Any, scope: str, before: tuple[Call, ...], after: tuple[Call, ...]) -> None:
    own = [node for node in model.graph.node if len(scopes_of(node)) >= 2 and scopes_of(node)[-2] == scope]
    _patch_pads_(model, own, [call for call in after if call.function in PADS])
    _patch_reshapes_(model, own, before, after)
    changes, steady = _changes(before, after)
    read = {name for node in own for name in node.input}
    for node in list(model.graph.node):
        # Constants that bear no scope were put in by the steps above and are right already.
        if node.op_type == "Constant" and node.output[0] in read and scopes_of(node):
            _patch_constant_(model, scope, node, changes, steady)
    for node in own:
        for attribute in node.attribute:
            # Counts of channels that operators carry as attributes.
            if attribute.name in ("group", "num_groups") and attribute.i in changes:
                attribute.i = int(_one(changes, attribute.i, set(), scope))


def _changes(before: tuple[Call, ...], after: tuple[Call, ...]) -> tuple[dict[float, set[float]], set[float]]:
    """Old number → its new values, and the numbers that stayed as they were somewhere."""
    changes: dict[float, set[float]] = {}
    steady: set[float] = set()
    for old, new in zip(before, after, strict=True):
        if old.function in (*PADS, *VIEWS):
            continue
        if len(old.numbers) != len(new.numbers) or len(old.sizes) != len(new.sizes):
            raise ValueError(f"{old.function} takes another number of arguments than when it was traced")
        pairs = list(zip(old.numbers, new.numbers, strict=True))
        if old.function in SIZED:
            pairs += zip(old.sizes, new.sizes, strict=True)
        for was, becomes in pairs:
            if was == becomes:
                steady.add(was)
            else:
                changes.setdefault(was, set()).add(becomes)
    return changes, steady


def _one(changes: dict[float, set[float]], was: float, steady: set[float], scope: str) -> float:
    values = changes[was] | ({was} if was in steady else set())
    if len(values) > 1:
        listed = ", ".join(f"{value:g}" for value in sorted(values))
        raise ValueError(f"in module {scope!r} the number {was:g} became {listed}; which is meant is unclear")
    return next(iter(values))


def _patch_constant_(
    model: Any, scope: str, node: Any, changes: dict[float, set[float]], steady: set[float]
) -> None:
    from onnx import numpy_helper

    attribute = node.attribute[0]
    if attribute.name == "value":
        array = numpy_helper.to_array(attribute.t)
    elif attribute.name in ("value_int", "value_ints"):
        array = np.asarray(attribute.i if attribute.name == "value_int" else list(attribute.ints), np.int64)
    elif attribute.name in ("value_float", "value_floats"):
        array = np.asarray(
            attribute.f if attribute.name == "value_float" else list(attribute.floats), np.float32
        )
    else:
        return
    # Tables of numbers (position codes, masks) are data; the numbers of code come singly or as a shape.
    if array.size > 8 or array.dtype.kind not in "if":
        return
    known = {_as(array.dtype, was): was for was in changes}
    flat = array.ravel()
    if not any(value in known for value in flat.tolist()):
        return
    new = [_one(changes, known[value], steady, scope) if value in known else value for value in flat.tolist()]
    patched = numpy_helper.from_array(np.asarray(new, array.dtype).reshape(array.shape))
    _give_scope_its_own_(model, scope, node, patched)


def _as(dtype: np.dtype[Any], number: float) -> float:
    """The number as an array of that type would hold it."""
    value: float = np.asarray(number).astype(dtype).item()
    return value


def _give_scope_its_own_(model: Any, scope: str, node: Any, value: Any) -> None:
    """A new constant for the readers within `scope`; constants may be shared between modules."""
    from onnx import helper

    name = f"{node.output[0]}_{scope}"
    for position, other in enumerate(model.graph.node):
        if other.output[0] == node.output[0]:
            model.graph.node.insert(position, helper.make_node("Constant", [], [name], value=value))
            break
    for reader in model.graph.node:
        scopes = scopes_of(reader)
        if len(scopes) >= 2 and scopes[-2] == scope:
            for position, read in enumerate(reader.input):
                if read == node.output[0]:
                    reader.input[position] = name


def _patch_pads_(model: Any, own: list[Any], calls: list[Call]) -> None:
    """Recompute the amounts of each Pad from what the copy's code passes: its last dimension comes first."""
    from onnx import helper, numpy_helper

    nodes = [node for node in own if node.op_type == "Pad"]
    if len(nodes) != len(calls):
        if calls:
            raise ValueError(f"{len(calls)} calls of pad became {len(nodes)} Pad nodes")
        return
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    for node, call in zip(nodes, calls, strict=True):
        if node.input[1] not in constants:
            raise ValueError("the amounts of a Pad are computed, not constant")
        rank = len(numpy_helper.to_array(constants[node.input[1]].attribute[0].t)) // 2
        amounts = np.zeros(2 * rank, np.int64)
        pairs = [int(number) for number in call.numbers[: 2 * rank]]
        pairs = pairs[: 2 * (len(pairs) // 2)]
        for distance in range(len(pairs) // 2):
            amounts[rank - 1 - distance] = pairs[2 * distance]
            amounts[2 * rank - 1 - distance] = pairs[2 * distance + 1]
        name = f"{node.output[0]}_pads"
        constant = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(amounts))
        model.graph.node.insert(list(model.graph.node).index(node), constant)
        node.input[1] = name


def _patch_reshapes_(model: Any, own: list[Any], before: tuple[Call, ...], after: tuple[Call, ...]) -> None:
    """Give each Reshape the sizes that the copy's code asked for; the batch dimension stays dynamic."""
    old = [call for call in before if call.function in VIEWS]
    new = [call for call in after if call.function in VIEWS]
    if old == new:
        return
    # The node that bears its call's name is the reshape itself; others in the call prepare its sizes.
    nodes = [node for node in own if node.op_type == "Reshape" and node.output[0] == scopes_of(node)[-1]]
    if len(nodes) != len(new):
        raise ValueError(f"{len(new)} reshapes became {len(nodes)} Reshape nodes")
    producer = {name: node for node in model.graph.node for name in node.output}
    for node, call in zip(nodes, new, strict=True):
        parts = producer[node.input[1]]
        if parts.op_type != "Concat" or len(parts.input) != len(call.sizes):
            raise ValueError(f"the sizes of {node.output[0]!r} are not given one by one")
        for position, size in enumerate(call.sizes):
            if producer[parts.input[position]].op_type == "Constant":
                parts.input[position] = _new_size_(model, parts, position, size)


def _new_size_(model: Any, parts: Any, position: int, size: int) -> str:
    from onnx import helper

    name = f"{parts.output[0]}_size_{position}"
    constant = helper.make_node("Constant", [], [name], value_ints=[size])
    model.graph.node.insert(list(model.graph.node).index(parts), constant)
    return name
