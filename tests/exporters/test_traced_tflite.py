from __future__ import annotations

from collections import Counter
from pathlib import Path

import export_nets as nets
import numpy as np
import pytest
import torch
from torch import nn

from device_bench.local import measure, predict
from device_bench.protocol import BenchRequest, Measurement, RuntimeName, TimingPolicy
from exporters import litert_library
from exporters.base import ArtifactMetadata
from exporters.tflite_graph import operator_names, unpack
from exporters.tflite_int8 import quantize_int8
from exporters.to_tflite import channels_last, to_float_tflite, write_tflite
from exporters.traced_onnx import TraceError
from exporters.traced_tflite import TracedTflite


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return nets.residual_net()


@pytest.fixture(scope="module")
def traced(net: nn.Module) -> TracedTflite:
    return TracedTflite.trace(net, nets.samples(2))


CUTS = {
    "as it was": (1.0, ()),
    "two neighbouring blocks removed and narrower": (0.5, ("layer1.0", "layer1.1")),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_copy_needs_no_conversion(
    net: nn.Module, traced: TracedTflite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cut: str
) -> None:
    keep, removed = CUTS[cut]
    copy = nets.narrowed(nets.without(net, *removed), keep)
    fresh = to_float_tflite(copy, nets.samples(1))
    monkeypatch.setattr(litert_library, "converter", None)
    content = traced.instantiate(copy, removed)
    assert Counter(operator_names(unpack(content))) == Counter(operator_names(unpack(fresh)))
    assert len(content) < 1.05 * len(fresh)
    inputs = nets.samples(8)
    expected = nets.torch_outputs(copy, inputs)
    int8 = quantize_int8(content, channels_last(inputs))
    for name, data, allowed in (("float", content, 1e-4), ("int8", int8, 0.1)):
        artifact = write_tflite(data, tmp_path / f"{name}.tflite", "float32", ArtifactMetadata())
        request = BenchRequest(path=artifact.path, runtime=RuntimeName.LITERT)
        outputs = predict(request, np.ascontiguousarray(channels_last(inputs)))
        assert isinstance(outputs, np.ndarray), outputs
        assert np.abs(outputs - expected).mean() / np.abs(expected).mean() < allowed


def test_a_narrowed_stem_of_one_channel_stays_with_xnnpack(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU()
    ).eval()
    narrow = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, 3, padding=1, groups=5), nn.ReLU()
    ).eval()
    samples = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype(np.float32)
    content = quantize_int8(TracedTflite.trace(net, samples).instantiate(narrow), channels_last(samples))
    model = unpack(content)
    depthwise = [
        operator
        for operator, kind in zip(model.subgraphs[0].operators, operator_names(model), strict=True)
        if kind == "DEPTHWISE_CONV_2D"
    ]
    assert [operator.builtinOptions.depthMultiplier for operator in depthwise] == [5, 1]
    artifact = write_tflite(content, tmp_path / "narrow.tflite", "int8", ArtifactMetadata())
    timing = TimingPolicy(warmup_seconds=0, min_seconds=0, min_samples=1)
    found = measure(BenchRequest(path=artifact.path, runtime=RuntimeName.LITERT, timing=timing))
    assert isinstance(found, Measurement), found
    assert {place.where for place in found.conditions.placements} == {"XNNPACK"}


def test_numbers_that_follow_from_widths_are_put_in() -> None:
    traced = TracedTflite.trace(nets.Padded(12).eval(), nets.samples(1))
    # Instantiating compares with torch; an odd number of added channels puts one less in front.
    content = traced.instantiate(nets.Padded(7).eval())
    sizes = {size for tensor in unpack(content).subgraphs[0].tensors for size in tensor.shape}
    assert 7 in sizes and 12 not in sizes


class Scaled(nn.Module):
    """A gain for each output, which the converter multiplies into the layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 4)
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(x) * self.gain
        return result


def test_merged_parameters_are_refused_at_once() -> None:
    samples = np.random.default_rng(0).standard_normal((2, 12)).astype(np.float32)
    with pytest.raises(TraceError, match=r"'(gain|linear\.\w+)' is one.*anew"):
        TracedTflite.trace(Scaled().eval(), samples)


def test_blocks_that_cannot_go_are_refused(net: nn.Module, traced: TracedTflite) -> None:
    with pytest.raises(TraceError, match="layer9"):
        traced.instantiate(net, ["layer9"])
    with pytest.raises(TraceError, match="other functions"):
        traced.instantiate(nets.Padded(7).eval())
