"""Operators of exported files find the layers they came from; the truth is the layers' own weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import export_nets as nets
import numpy as np
import pytest
import torch
from torch import nn

from device_bench.protocol import (
    BenchRequest,
    Conditions,
    DeviceInfo,
    Failure,
    FailureKind,
    OperatorTime,
    Profile,
    RuntimeName,
)
from device_bench.runtimes.protobuf_wire import read_nodes
from device_bench.runtimes.tflite_cut import TfliteFile
from exporters import exporter_for
from exporters.base import ArtifactMetadata
from exporters.candidates import ShapeBench
from exporters.metadata import read_metadata
from exporters.profile import OTHER, layers_of, unit_shares, units_of_layers
from exporters.tflite_graph import constant, unpack
from exporters.to_tflite import to_float_tflite
from pipeline.methods.folding import fold_batch_norms
from pipeline.plan import CompressionPlan
from pipeline.target import LOCAL_TARGETS
from pipeline.tracing import trace
from pipeline.zoo import build

WHOLE = CompressionPlan()


def operator(kind: str, inputs: str, outputs: str, ms: float = 1.0) -> OperatorTime:
    return OperatorTime(
        name="", operator=kind, ms=ms, inputs=tuple(inputs.split()), outputs=tuple(outputs.split())
    )


def profile_of(operators: Sequence[OperatorTime], whole_ms: float) -> Profile:
    device = DeviceInfo(
        hostname="board",
        machine="aarch64",
        system="Linux",
        cpu_model="A72",
        cpu_count=4,
        memory_bytes=1 << 32,
    )
    return Profile(
        operators=tuple(operators),
        whole_ms=whole_ms,
        other_ms=whole_ms - sum(each.ms for each in operators),
        method="profiler",
        conditions=Conditions(
            device=device,
            runtime=RuntimeName.ONNXRUNTIME,
            runtime_version="1.0",
            accelerator="cpu",
            threads=1,
        ),
    )


def operators_in(path: Path, folder: Path) -> list[OperatorTime]:
    """What runs: a TFLite file's own operators, and what ONNX Runtime makes of an ONNX file."""
    if path.suffix == ".tflite":
        found = TfliteFile(path.read_bytes()).operators()
        return [
            OperatorTime(name="", operator=each.kind, ms=1, inputs=each.inputs, outputs=each.outputs)
            for each in found
        ]
    import onnxruntime

    optimized = folder / "optimized.onnx"
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return [
        OperatorTime(name=node.name, operator=node.operator, ms=1, inputs=node.inputs, outputs=node.outputs)
        for node in read_nodes(optimized.read_bytes())
    ]


def lively(net: nn.Module) -> nn.Module:
    """No two parameters alike, as after training: exporters make one of equal constants."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return net.eval()


@pytest.mark.parametrize("form", ["onnx", "tflite"])
@pytest.mark.parametrize("name", ["residual", "dscnn", "vit"])
def test_every_layer_of_an_int8_file_has_its_operators(name: str, form: str, tmp_path: Path) -> None:
    shape = nets.SHAPE if name == "residual" else (1, 8, 8)
    net = nets.residual_net() if name == "residual" else lively(build(name, shape, 10))
    graph = trace(net, shape)
    units = units_of_layers(graph)
    path = tmp_path / f"model.int8.{form}"
    samples = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    exporter_for(form).export(net, path, "int8", samples, ArtifactMetadata(units=units))
    assert read_metadata(path).units == units
    assert list(units) == [layer.name for layer in graph.layers], "the network's order"
    operators = operators_in(path, tmp_path)
    found = layers_of(operators, list(units))
    assert set(found) == set(units)
    products = [
        layer
        for each, layer in zip(operators, found, strict=True)
        if "CONV" in each.operator.upper() or each.operator == "FULLY_CONNECTED"
    ]
    assert len(products) == len(set(products)), "each layer multiplies once"


def test_tflite_operators_hold_the_weights_of_their_layers(tmp_path: Path) -> None:
    net = nets.residual_net()
    content = to_float_tflite(net, nets.samples(1))
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    layers = list(units_of_layers(trace(net, nets.SHAPE)))
    found = layers_of(operators_in(path, tmp_path), layers)
    folded = fold_batch_norms(net, torch.from_numpy(nets.samples(2)))
    model = unpack(content)
    checked = set()
    for each, kind, layer in zip(
        model.subgraphs[0].operators, TfliteFile(content).operators(), found, strict=True
    ):
        if kind.kind == "CONV_2D":
            assert layer is not None
            weight = constant(model, int(each.inputs[1]))
            expected = folded.get_submodule(layer).weight.detach().numpy()
            np.testing.assert_array_equal(weight, expected.transpose(0, 2, 3, 1))
            checked.add(layer)
    assert checked == {layer for layer in layers if "conv" in layer}


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("conv1.weight_quantized", "conv1"),
        ("stage.1.conv1.weight", "stage.1.conv1"),
        ("stage.10.conv1.bias_quantized", "stage.10.conv1"),
        ("a.Wrapper/a.My_Net_wrapped/torch.Conv2d_conv1;", "conv1"),
        ("a.My_Net_wrapped/a.Sequential_stage/a.Block_10/torch.Conv2d_conv1;2", "stage.10.conv1"),
        ("a.My_Net_wrapped/a.Sequential_stage/a.Block_1/torch.Conv2d_conv1;2", "stage.1.conv1"),
        ("a.My_Net_wrapped/a.Block_1/torch.Conv2d_conv1;", "stage.1.conv1"),
        ("a.Net_wrapped/a.ReLU_relu;a.Net_wrapped/torch.Conv2d_conv1;", "conv1"),
        ("val_8", None),
        ("a.Net_wrapped/a.Linear_head;", None),
    ],
)
def test_names_of_tensors(tensor: str, layer: str | None) -> None:
    assert layers_of([operator("Op", tensor, "y")], ["conv1", "stage.1.conv1", "stage.10.conv1"]) == [layer]


def test_operators_without_weights_follow_what_they_read() -> None:
    operators = [
        operator("QuantizeLinear", "input", "q"),
        operator("Conv", "q a.weight", "x"),
        operator("Conv", "x b.weight", "y"),
        operator("Add", "x y", "z"),
        operator("MatMul", "z val_3", "p"),
        operator("Add", "p c.bias", "r"),
    ]
    assert layers_of(operators, ["a", "b", "c"]) == ["a", "a", "b", "b", "c", "c"]


def test_shares_and_the_rest_sum_to_one() -> None:
    operators = [operator("Conv", "input a.weight", "x", 2.0), operator("Conv", "x b.weight", "y", 1.0)]
    units = {"a": "first", "b": "second", "c": "first"}
    assert unit_shares(profile_of(operators, 4.0), units) == {"first": 0.5, "second": 0.25, OTHER: 0.25}
    # The sum of the operators may exceed the whole; the rest is then below nothing.
    assert unit_shares(profile_of(operators, 2.5), units)[OTHER] == pytest.approx(-0.2)
    assert unit_shares(profile_of([operator("Op", "x", "y", 1.0)], 1.0), units)[OTHER] == 1.0


class TellingBench:
    """Profiles on one runtime and fails on the other."""

    def __init__(self) -> None:
        self.requests: list[BenchRequest] = []

    def profile(self, request: BenchRequest) -> Profile | Failure:
        self.requests.append(request)
        if request.runtime is RuntimeName.LITERT:
            return Failure(kind=FailureKind.UNSUPPORTED, message="no profiler")
        assert read_metadata(Path(request.path)).units == {"first": "first", "head": "head"}
        return profile_of([operator("Conv", "input first.weight", "x", 1.0)], 2.0)


def test_a_profile_is_kept_and_a_failure_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = TellingBench()
    monkeypatch.setattr("exporters.candidates.bench_for", lambda target: bench)
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("first", nn.Conv2d(3, 8, 3))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flat", nn.Flatten())
    net.add_module("head", nn.Linear(8, 5))
    graph = trace(net.eval(), nets.SHAPE)
    targets = tuple(LOCAL_TARGETS.values())

    def ask() -> Mapping[str, Profile | Failure]:
        return ShapeBench(net, graph, targets, nets.samples(2), tmp_path).profile(net, WHOLE)

    first, again = ask(), ask()
    assert first == again
    assert isinstance(first["local-onnxruntime"], Profile)
    assert isinstance(first["local-litert"], Failure)
    asked = [request.runtime for request in bench.requests]
    assert asked == [RuntimeName.ONNXRUNTIME, RuntimeName.LITERT, RuntimeName.LITERT]
