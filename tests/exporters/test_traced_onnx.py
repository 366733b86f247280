from __future__ import annotations

from collections import Counter
from typing import Any

import export_nets as nets
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from exporters.onnx_int8 import quantize_int8
from exporters.to_onnx import to_float_onnx
from exporters.traced_onnx import TracedOnnx, TraceError


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return nets.residual_net()


@pytest.fixture(scope="module")
def traced(net: nn.Module) -> TracedOnnx:
    return TracedOnnx.trace(net, nets.samples(2))


def run(model: Any, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs})[0]


def node_types(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


CUTS = {
    "as it was": (1.0, ()),
    "inner widths halved": (0.5, ()),
    "one block removed": (1.0, ("layer1.0",)),
    "two blocks removed and narrower": (0.25, ("layer1.1", "layer3.1")),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_copy_needs_no_export(
    net: nn.Module, traced: TracedOnnx, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    keep, removed = CUTS[cut]
    copy = nets.narrowed(nets.without(net, *removed), keep)
    fresh = to_float_onnx(copy, nets.samples(1))
    monkeypatch.setattr(torch.onnx, "export", None)
    model = traced.instantiate(copy, removed)
    for batch in (1, 4):
        inputs = nets.samples(batch)
        np.testing.assert_allclose(run(model, inputs), nets.torch_outputs(copy, inputs), atol=1e-4)
    assert node_types(model) == node_types(fresh)


def test_instances_do_not_touch_the_trace(net: nn.Module, traced: TracedOnnx) -> None:
    before = traced.model.SerializeToString()
    traced.instantiate(nets.without(net, "layer1.0"), ["layer1.0"])
    assert traced.model.SerializeToString() == before


def test_an_instance_can_be_quantized(net: nn.Module, traced: TracedOnnx) -> None:
    copy = nets.narrowed(net, 0.5)
    inputs = nets.samples(16)
    expected = nets.torch_outputs(copy, inputs)
    got = run(quantize_int8(traced.instantiate(copy), inputs), inputs)
    assert np.abs(got - expected).mean() / np.abs(expected).mean() < 0.1


def test_numbers_that_follow_from_widths_are_put_in() -> None:
    traced = TracedOnnx.trace(nets.Narrow(12).eval(), nets.samples(1))
    # An odd number of added channels: in front comes one less than behind.
    narrow = nets.Narrow(7).eval()
    model = traced.instantiate(narrow)
    inputs = nets.samples(2)
    np.testing.assert_allclose(run(model, inputs), nets.torch_outputs(narrow, inputs), atol=1e-4)


class Scaled(nn.Module):
    """Multiplies by a constant that is no parameter, so the graph keeps the original's."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.full((5,), factor)
        self.layer = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.factor


def test_an_instance_that_computes_something_else_is_refused() -> None:
    traced = TracedOnnx.trace(Scaled(2.0).eval(), nets.samples(1, (3,)))
    with pytest.raises(TraceError, match="differs from torch"):
        traced.instantiate(Scaled(3.0).eval())


class Twice(nn.Module):
    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for size in self.sizes:
            x = x + float(size)
        return x


def test_an_ambiguous_number_and_other_code_are_refused() -> None:
    traced = TracedOnnx.trace(Twice(16, 16).eval(), nets.samples(1, (3,)))
    with pytest.raises(TraceError, match="16 became 4, 8"):
        traced.instantiate(Twice(8, 4).eval())
    with pytest.raises(TraceError, match="other functions"):
        traced.instantiate(Twice(16, 16, 16).eval())


def test_a_block_that_is_no_block_cannot_be_bypassed(net: nn.Module, traced: TracedOnnx) -> None:
    with pytest.raises(TraceError, match=r"'layer9' has 0 inputs"):
        traced.instantiate(net, ["layer9"])
