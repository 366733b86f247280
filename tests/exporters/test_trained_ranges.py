"""What quantization-aware training learned arrives in the files as it is, scale by scale."""

from __future__ import annotations

import export_nets as nets
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exporters import onnx_int8, tflite_int8
from exporters.quantization import Quantization
from exporters.tflite_graph import unpack
from exporters.to_onnx import to_float_onnx
from exporters.to_tflite import channels_last, to_float_tflite
from pipeline.methods.quantization_aware import AwareModule
from pipeline.trained_range import TrainedRange
from pipeline.zoo import build

SAMPLES = nets.samples(32)
FAMILIES = {
    "mlp": (1, 8, 8),
    "cnn": (1, 8, 8),
    "dscnn": (1, 49, 10),
    "mobilenetv2": (3, 32, 32),
    "vit": (3, 32, 32),
}


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, tuple[TrainedRange, ...], AwareModule]:
    net = nets.residual_net()
    x = torch.from_numpy(SAMPLES)
    aware = AwareModule(net, x).train()
    for seed in range(3):
        # Other values than those of calibration, so that a range that was found anew would show.
        aware(torch.from_numpy(nets.samples(16) * (1.3 + 0.2 * seed)))
    aware.eval()
    return net, aware.trained_ranges(x), aware


def scales(ranges: tuple[TrainedRange, ...]) -> list[tuple[float, int]]:
    found = []
    for each in ranges:
        scale = (each.high - each.low) / 255
        found.append((scale, round(-each.low / scale)))
    return found


def check(wanted: list[tuple[float, int]], found: list[tuple[float, int]]) -> None:
    for scale, zero in wanted:
        assert any(abs(s / scale - 1) < 1e-5 and z == zero for s, z in found), (scale, zero, found)


def test_onnx_has_every_trained_scale(
    trained: tuple[nn.Module, tuple[TrainedRange, ...], AwareModule],
) -> None:
    net, ranges, _ = trained
    model = onnx_int8.quantize_int8(to_float_onnx(net, SAMPLES), SAMPLES, Quantization(trained=ranges))
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    quantizing = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    found = [(float(values[n.input[1]]), int(values[n.input[2]])) for n in quantizing]
    check(scales(ranges), found)


def test_tflite_has_every_trained_scale(
    trained: tuple[nn.Module, tuple[TrainedRange, ...], AwareModule],
) -> None:
    net, ranges, _ = trained
    content = to_float_tflite(net, SAMPLES)
    made = tflite_int8.quantize_int8(content, channels_last(SAMPLES), Quantization(trained=ranges))
    found = []
    for tensor in unpack(made).subgraphs[0].tensors:
        told = tensor.quantization
        if told is not None and told.scale is not None and len(told.scale) == 1:
            # int8 counts from −128 where uint8 counts from 0.
            found.append((float(told.scale[0]), int(told.zeroPoint[0]) + 128))
    check(scales(ranges), found)


def test_the_file_computes_what_was_trained(
    trained: tuple[nn.Module, tuple[TrainedRange, ...], AwareModule],
) -> None:
    import onnxruntime

    net, ranges, aware = trained
    model = onnx_int8.quantize_int8(to_float_onnx(net, SAMPLES), SAMPLES, Quantization(trained=ranges))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"input": SAMPLES})
    with torch.no_grad():
        wanted = aware(torch.from_numpy(SAMPLES)).numpy()
    step = scales(ranges)[-1][0]
    assert np.mean(np.abs(found - wanted) <= 1.01 * step) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_ranges_of_every_family_arrive_in_both_formats(name: str, caplog: pytest.LogCaptureFixture) -> None:
    shape = FAMILIES[name]
    torch.manual_seed(0)
    net = build(name, shape, 10).eval()
    x = torch.randn(16, *shape)
    aware = AwareModule(net, x).train()
    aware(x)
    ranges = aware.eval().trained_ranges(x)
    onnx_int8.quantize_int8(to_float_onnx(net, x.numpy()), x.numpy(), Quantization(trained=ranges))
    assert "trained ranges belong" not in caplog.text
    samples = channels_last(x.numpy()) if x.ndim == 4 else x.numpy()
    tflite_int8.quantize_int8(to_float_tflite(net, x.numpy()), samples, Quantization(trained=ranges))
    # Constants move from a layer norm and from the scale of attention into what follows them there.
    assert ("trained ranges belong" in caplog.text) == (name == "vit")
