"""Layers of other precisions, in both formats: the file stores what the plan says, and still computes."""

from __future__ import annotations

import export_nets as nets
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto

from device_bench.protocol import OperatorTime
from exporters import onnx_int8, tflite_int8
from exporters.quantization import Quantization, matched_ranges, precision_of
from exporters.tflite_graph import float_operators, operators_of, schema, unpack
from exporters.to_onnx import to_float_onnx
from exporters.to_tflite import channels_last, to_float_tflite
from pipeline.errors import ExportError
from pipeline.layer_choice import CalibrationMethod
from pipeline.tracing import trace
from pipeline.trained_range import TrainedRange, fingerprint_of

NET = nets.residual_net()
LAYERS = [layer.name for layer in trace(NET, nets.SHAPE).layers]
ONE = "layer2.0.conv1"


@pytest.fixture(scope="module")
def float_onnx() -> onnx.ModelProto:
    return to_float_onnx(NET, nets.samples(2))


@pytest.fixture(scope="module")
def float_tflite() -> bytes:
    return to_float_tflite(NET, nets.samples(2))


def quantization(precision: str) -> Quantization:
    return Quantization(layers=LAYERS, precisions={ONE: precision})  # type: ignore[dict-item]


def onnx_error(model: onnx.ModelProto, float_model: onnx.ModelProto) -> float:
    """How far the model's outputs are from the float one's, as a share of their span."""
    samples = nets.samples(16)
    outputs = [
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input": samples}
        )[0]
        for each in (model, float_model)
    ]
    return float(np.abs(outputs[0] - outputs[1]).max() / np.ptp(outputs[1]))


def tflite_outputs(content: bytes, samples: np.ndarray) -> np.ndarray:
    """What the file gives for each sample; 8-bit inputs and outputs are converted."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for sample in samples:
        given = sample[None]
        if source["dtype"] == np.int8:
            scale, zero = source["quantization"]
            given = np.clip(np.round(given / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], given)
        interpreter.invoke()
        output = interpreter.get_tensor(target["index"])
        if target["dtype"] == np.int8:
            scale, zero = target["quantization"]
            output = (output.astype(np.float32) - zero) * scale
        found.append(output)
    return np.concatenate(found)


def weight_type(model: onnx.ModelProto) -> int:
    """The stored type of the one layer's weights."""
    (found,) = [t for t in model.graph.initializer if t.name.startswith(f"{ONE}.weight") and len(t.dims) == 4]
    return int(found.data_type)


def test_onnx_float_layer(float_onnx: onnx.ModelProto) -> None:
    made = onnx_int8.quantize_int8(float_onnx, nets.samples(32), quantization("float32"))
    assert weight_type(made) == TensorProto.FLOAT
    assert onnx_error(made, float_onnx) < 0.05


def test_onnx_four_bit_weights(float_onnx: onnx.ModelProto) -> None:
    made = onnx_int8.quantize_int8(float_onnx, nets.samples(32), quantization("int4"))
    plain = onnx_int8.quantize_int8(float_onnx, nets.samples(32))
    assert weight_type(plain) == TensorProto.INT8
    assert weight_type(made) == TensorProto.INT4
    assert onnx_error(plain, float_onnx) < onnx_error(made, float_onnx) < 0.3


def test_onnx_sixteen_bit_activations(float_onnx: onnx.ModelProto) -> None:
    made = onnx_int8.quantize_int8(float_onnx, nets.samples(32), quantization("int16x8"))
    kinds = {t.name: t.data_type for t in made.graph.initializer}
    zeros = [kinds[n.input[2]] for n in made.graph.node if n.op_type == "QuantizeLinear" and len(n.input) > 2]
    assert 2 <= zeros.count(TensorProto.UINT16) < zeros.count(TensorProto.UINT8)
    assert onnx_error(made, float_onnx) < 0.05


def test_onnx_layer_with_ranges_of_the_moment(float_onnx: onnx.ModelProto) -> None:
    made = onnx_int8.quantize_int8(float_onnx, nets.samples(32), quantization("dynamic"))
    plain = onnx_int8.quantize_int8(float_onnx, nets.samples(32))
    kinds = [node.op_type for node in made.graph.node]
    assert (kinds.count("ConvInteger"), kinds.count("DynamicQuantizeLinear")) == (1, 1)
    assert kinds.count("Conv") == [node.op_type for node in plain.graph.node].count("Conv") - 1
    assert onnx_error(made, float_onnx) < 0.05


def test_onnx_half_layer(float_onnx: onnx.ModelProto) -> None:
    made = onnx_int8.quantize_int8(float_onnx, nets.samples(32), quantization("float16"))
    assert weight_type(made) == TensorProto.FLOAT16
    assert onnx_error(made, float_onnx) < 0.05


def test_onnx_whole_in_halves_converts_once_in_and_once_out(float_onnx: onnx.ModelProto) -> None:
    asked = Quantization(layers=LAYERS, precisions=dict.fromkeys(LAYERS, "float16"))
    made = onnx_int8.quantize_int8(float_onnx, nets.samples(4), asked)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("Cast") == 2 and "QuantizeLinear" not in kinds
    assert not [t.name for t in made.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert 0 < onnx_error(made, float_onnx) < 0.005


def test_every_weight_of_a_halved_tflite_file_is(float_tflite: bytes) -> None:
    asked = Quantization(layers=LAYERS, precisions=dict.fromkeys(LAYERS, "float16"))
    made = tflite_int8.quantize_int8(float_tflite, channels_last(nets.samples(4)), asked)
    assert 0.4 < len(made) / len(float_tflite) < 0.7
    samples = channels_last(nets.samples(8))
    plain = tflite_int8.quantize_int8(float_tflite, samples)
    exact, halved, whole = (tflite_outputs(each, samples) for each in (float_tflite, made, plain))
    span = float(np.ptp(exact))
    assert 0 < float(np.abs(halved - exact).max()) / span < 0.005
    assert float(np.abs(halved - exact).max()) < float(np.abs(whole - exact).max())


@pytest.mark.parametrize(
    ("precision", "weights", "made"),
    [
        ("float32", "FLOAT32", "FLOAT32"),
        ("int4", "INT4", "INT8"),
        ("int16x8", "INT8", "INT16"),
        ("dynamic", "INT8", "FLOAT32"),
    ],
)
def test_tflite_layer(float_tflite: bytes, precision: str, weights: str, made: str) -> None:
    samples = channels_last(nets.samples(16))
    content = tflite_int8.quantize_int8(float_tflite, samples, quantization(precision))
    model = unpack(content)
    kinds = schema().TensorType
    operators = operators_of(model)
    asked = quantization(precision)
    (place,) = [
        i
        for i, found in enumerate(precision_of(operators, asked, tflite_int8.WITH_WEIGHTS))
        if found == precision and operators[i].operator == "CONV_2D"
    ]
    operator = model.subgraphs[0].operators[place]
    tensors = model.subgraphs[0].tensors
    assert tensors[operator.inputs[1]].type == getattr(kinds, weights)
    assert tensors[operator.outputs[0]].type == getattr(kinds, made)
    assert bool(float_operators(model)) == (made == "FLOAT32")


def test_a_layer_that_no_operator_is_of_is_an_error() -> None:
    operators = [OperatorTime(name="a", operator="Conv", ms=0.0, inputs=("x", "one.weight"), outputs=("y",))]
    asked = Quantization(layers=("one", "two"), precisions={"two": "int4"})
    with pytest.raises(ExportError, match="layers two have a precision of their own"):
        precision_of(operators, asked, ("Conv",))


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_ranges_of_the_method_are_in_the_file(float_onnx: onnx.ModelProto, method: CalibrationMethod) -> None:
    samples = nets.samples(32)
    samples[0, 0, 0, 0] = 30.0
    plain, made = (
        _input_scale(onnx_int8.quantize_int8(float_onnx, samples, asked))
        for asked in (Quantization(), Quantization(calibration=method))
    )
    assert made < plain


def test_a_trained_range_finds_its_tensor_by_values() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(4, 3, 5, 5)).astype(np.float32) for name in ("a", "b")}
    prints = {name: fingerprint_of(found) for name, found in values.items()}
    # Another layout, and summed in another order.
    seen = fingerprint_of(values["b"].transpose(0, 2, 3, 1) + np.float32(1e-6))
    assert matched_ranges([TrainedRange(low=-2.0, high=2.5, fingerprint=seen)], prints) == {"b": (-2.0, 2.5)}
    with pytest.raises(ExportError, match="belong to no tensor"):
        matched_ranges([TrainedRange(low=-2.0, high=2.5, fingerprint=(0.0, 1.0, 0.5, 0.4))], prints)


def test_a_few_lost_ranges_are_told_and_many_are_an_error(caplog: pytest.LogCaptureFixture) -> None:
    known = {str(i): (0.0, 1.0 + i, 0.1, 0.2) for i in range(8)}
    trained = [TrainedRange(low=0.0, high=1.0, fingerprint=each) for each in known.values()]
    lost = [TrainedRange(low=0.0, high=1.0, fingerprint=(-9.0, i, 0.1, 0.2)) for i in range(3)]
    assert len(matched_ranges([*trained, *lost[:2]], known)) == 8
    assert "2 of 10 trained ranges" in caplog.text
    with pytest.raises(ExportError, match="3 of 11 trained ranges, such as 0 to 1"):
        matched_ranges([*trained, *lost], known)


def _input_scale(model: onnx.ModelProto) -> float:
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    first = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "input")
    return float(constants[first.input[1]])
