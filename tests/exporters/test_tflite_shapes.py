"""Shapes that follow from narrower constants: reshapes, and a vision transformer cut without converting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from exporters import litert_library
from exporters.tflite_graph import unpack
from exporters.tflite_shapes import plain_interpreter, reshaped
from exporters.to_tflite import channels_last
from exporters.traced_tflite import TracedTflite
from pipeline.compressor import compress
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.tracing import trace
from pipeline.zoo import build

DIGITS = (1, 8, 8)


@pytest.mark.parametrize(
    ("before", "result", "now", "expected"),
    [
        # Heads split from and joined to a width; there are as many as before.
        ([1, 16, 64], [1, 16, 4, 16], [1, 16, 32], [1, 16, 4, 8]),
        ([1, 16, 4, 16], [16, 64], [1, 16, 4, 8], [16, 32]),
        # The size that changes need not be the last.
        ([1, 4, 16, 16], [4, 16, 16], [1, 4, 8, 16], [4, 8, 16]),
        ([1, 64, 4, 4], [1, 64, 16], [1, 48, 4, 4], [1, 48, 16]),
        ([16], [1, 16, 1], [12], [1, 12, 1]),
        ([2, 3], [2, 3], [2, 3], [2, 3]),
        # Four heads cannot share 30.
        ([1, 64], [1, 4, 16], [1, 30], None),
        ([1, 1], [1], [1, 5], None),
    ],
)
def test_reshaped(before: list[int], result: list[int], now: list[int], expected: list[int] | None) -> None:
    assert reshaped(before, result, now) == expected


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    """With layer norms and biases that are not what they start as."""
    torch.manual_seed(0)
    module = build("vit", DIGITS, 10).eval()
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module


@pytest.fixture(scope="module")
def graph(vit: nn.Module) -> ModelGraph:
    return trace(vit, DIGITS)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(0).random((4, *DIGITS)).astype(np.float32)


@pytest.fixture(scope="module")
def traced(vit: nn.Module, samples: np.ndarray) -> TracedTflite:
    return TracedTflite.trace(vit, samples)


def plans(graph: ModelGraph) -> dict[str, CompressionPlan]:
    """Every unit halved alone, and all of them with a block removed."""
    half = UnitChoice(keep_ratio=0.5)
    names = [unit.name for unit in graph.units if unit.name != "head"]
    found = {name: CompressionPlan(units={name: half}) for name in names}
    all_of_them = CompressionPlan(units=dict.fromkeys(names, half), removed=(graph.blocks[2].name,))
    return found | {"all of them": all_of_them}


def test_a_cut_vision_transformer_needs_no_conversion(
    vit: nn.Module,
    graph: ModelGraph,
    samples: np.ndarray,
    traced: TracedTflite,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(litert_library, "converter", None)
    sizes = {}
    for name, plan in plans(graph).items():
        cut = compress(vit, graph, plan).eval()
        content = traced.instantiate(cut, plan.removed)
        interpreter = plain_interpreter(content)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], channels_last(samples[:1]))
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        with torch.no_grad():
            expected = cut(torch.from_numpy(samples[:1])).numpy()
        np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=name)
        sizes[name] = len(content)
    assert max(sizes.values()) < len(traced.content)
    assert min(sizes, key=lambda name: sizes[name]) == "all of them"


def test_quantizers_can_tell_tensors_of_a_cut_graph_apart(
    vit: nn.Module, graph: ModelGraph, traced: TracedTflite
) -> None:
    plan = plans(graph)["all of them"]
    model = unpack(traced.instantiate(compress(vit, graph, plan).eval(), plan.removed))
    names = [tensor.name for tensor in model.subgraphs[0].tensors]
    assert len(set(names)) == len(names) > 50
