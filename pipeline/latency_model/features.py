"""What the cost of an operator is computed from.

Two views of one operator. `cost_terms` are quantities whose sum, each times a cost that is never negative,
is a first estimate: a fixed cost for a call, bytes moved, and the multiplications of blocked kernels, which
work on whole blocks of rows and columns and so pay for what an odd size leaves empty (Goto and van de Geijn,
"Anatomy of high-performance matrix multiplication", 2008). `shape_features` are what regression trees see
when they correct it.
"""

from __future__ import annotations

from math import log1p

from pipeline.latency_model.operators import Operator

# Kernels that need whole blocks of these sizes exist beside slower ones that do not: two laws, not one.
INPUT_BLOCK = 4
OUTPUT_BLOCK = 16
# Columns and rows that kernels of today's instruction sets work on at once.
COLUMN_BLOCKS = (1, 8, 16, 32, 48, 64)
ROW_BLOCKS = (4, 6, 8, 16)
# Values that integer dot products multiply at once (VNNI, SDOT).
DOT = 4

PRODUCTS = ("conv", "dense", "matmul")


def group(operator: Operator) -> str:
    """Operators of one group share their costs: family, window or none, and whether blocks are whole."""
    name = operator.family
    if operator.kind == "conv":
        name += " window" if operator.taps > 1 else " point"
        name += "" if operator.depth // operator.taps % INPUT_BLOCK else f" in{INPUT_BLOCK}"
    if operator.kind in ("conv", "depthwise"):
        name += "" if operator.columns % OUTPUT_BLOCK else f" out{OUTPUT_BLOCK}"
    return name


def cost_terms(operator: Operator) -> dict[str, float]:
    """Quantities by name; see above. A batch of products counts each."""
    if operator.kind in PRODUCTS:
        return _product_terms(operator)
    if operator.kind == "depthwise":
        return _depthwise_terms(operator)
    lines = operator.outputs / max(1, operator.inner)
    return {
        "call": 1.0,
        "in": operator.inputs,
        "out": operator.outputs,
        "lines": lines,
        "blocked": lines * _whole(operator.inner, 16),
    }


def _product_terms(operator: Operator) -> dict[str, float]:
    rows, columns, batches = operator.rows, operator.columns, operator.batches
    depth = _whole(operator.depth, DOT)
    channels = operator.depth // operator.taps
    lines = batches * rows
    terms: dict[str, float] = {
        "call": 1.0,
        "batches": batches,
        "in": operator.inputs,
        "out": operator.outputs,
        "weights": operator.weights,
        "lines": lines,
        "positions": lines * operator.taps,
        "gathered": lines * operator.depth if operator.taps > 1 else 0,
        "gathered blocks": lines * operator.taps * _whole(channels, 16),
        "gathered rest": lines * operator.taps * (channels % 16),
        "depth rest": lines * (operator.depth % DOT),
        "column rest 4": lines * (columns % 4),
        "column rest 16": lines * (columns % 16),
        "out 16": lines * _whole(columns, 16),
        "out 32": lines * _whole(columns, 32),
        "out 6 16": batches * _whole(rows, 6) * _whole(columns, 16),
    }
    terms |= {f"macs {block}": lines * _whole(columns, block) * depth for block in COLUMN_BLOCKS}
    terms |= {
        f"macs {block} 16": batches * _whole(rows, block) * _whole(columns, 16) * depth
        for block in ROW_BLOCKS
    }
    return terms


def _depthwise_terms(operator: Operator) -> dict[str, float]:
    rows, columns, taps = operator.rows, operator.columns, operator.taps
    terms: dict[str, float] = {
        "call": 1.0,
        "in": operator.inputs,
        "out": operator.outputs,
        "weights": operator.weights,
        "lines": rows,
        "positions": rows * taps,
        "out 16": rows * _whole(columns, 16),
        "column rest 16": rows * (columns % 16),
        "macs rest 16": rows * (columns % 16) * taps,
        "macs rest 8": rows * (columns % 8) * taps,
    }
    return terms | {f"macs {block}": rows * _whole(columns, block) * taps for block in (1, 8, 16, 32)}


def shape_features(operator: Operator) -> tuple[float, ...]:
    """What trees split on: sizes on a logarithmic scale, and what is left over of blocks."""
    channels = operator.depth // operator.taps
    moved = operator.inputs + operator.outputs + operator.weights
    return (
        *(
            log1p(size)
            for size in (operator.macs, moved, operator.inputs, operator.outputs, operator.weights)
        ),
        *(
            log1p(size)
            for size in (operator.rows, operator.columns, operator.depth, channels, operator.inner)
        ),
        float(operator.taps),
        float(operator.stride),
        *(float(operator.columns % block) for block in (4, 8, 16, 32, 64)),
        *(float(channels % block) for block in (4, 8, 16)),
        *(float(operator.rows % block) for block in (4, 6)),
    )


def _whole(size: int, block: int) -> int:
    """`size` rounded up to whole blocks."""
    return -(-size // block) * block
