from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from device_bench.errors import BadInputError
from exporters.calibration import read_operators
from exporters.calibration_net import NetBuilder, Value
from exporters.calibration_nets import KINDS, kind_of, write_net
from exporters.calibration_onnx_net import OnnxNetBuilder
from exporters.calibration_tflite_net import TfliteNetBuilder
from pipeline.latency_model.operators import Operator

BUILDERS = {"onnx": OnnxNetBuilder, "tflite": TfliteNetBuilder}
FORMS = sorted(BUILDERS)


def operators(folder: Path, form: str, content: bytes) -> tuple[Operator, ...]:
    path = folder / f"net.{form}"
    path.write_bytes(content)
    return read_operators(path)


def of_kind(found: tuple[Operator, ...], kind: str) -> list[Operator]:
    return [one for one in found if one.kind == kind]


def run_tflite(content: bytes) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()
    result: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result


def run_onnx(content: bytes) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    result: np.ndarray = session.run(None, {source.name: np.zeros(source.shape, np.float32)})[0]
    return result


def picture_net(builder: NetBuilder) -> Value:
    x = builder.conv(builder.picture(9, 8, 3), 16, (3, 3), 2)
    x = builder.add(builder.conv(x, 16, (3, 3)), x)
    x = builder.add(builder.conv(x, 20, (3, 3), 2), builder.shortcut(x, 20))
    x = builder.conv(x, 20, (3, 3), depthwise=True)
    x = builder.gated(x, builder.conv(builder.mean(x), 20, (1, 1)))
    return builder.dense(builder.mean(x), 7)


def token_net(builder: NetBuilder) -> Value:
    x = builder.norm(builder.patches(builder.picture(8, 8, 1), 12, 2))
    mixed = builder.attention(builder.linear(x, 8), builder.linear(x, 8), builder.linear(x, 12), 2)
    x = builder.add(x, builder.linear(builder.gelu(mixed), 12))
    return builder.dense(builder.token_mean(x), 5)


@pytest.mark.parametrize("form", FORMS)
def test_a_net_of_convolutions_is_read_as_it_was_written(tmp_path: Path, form: str) -> None:
    builder = BUILDERS[form](0)
    found = operators(tmp_path, form, builder.finish(picture_net(builder)))
    assert found[0].kind == "invocation"
    assert (found[0].inputs, found[0].outputs) == (9 * 8 * 3, 7)
    convs = of_kind(found, "conv")
    assert [(c.rows, c.columns, c.depth, c.taps, c.stride) for c in convs] == [
        (5 * 4, 16, 27, 9, 4),
        (5 * 4, 16, 144, 9, 1),
        (3 * 2, 20, 144, 9, 4),
        (1, 20, 20, 1, 1),
    ]
    assert [c.weights for c in convs] == [16 * 27, 16 * 144, 20 * 144, 400]
    (depthwise,) = of_kind(found, "depthwise")
    assert (depthwise.rows, depthwise.columns, depthwise.depth) == (6, 20, 9)
    (dense,) = of_kind(found, "dense")
    assert (dense.rows, dense.columns, dense.depth, dense.weights) == (1, 7, 20, 140)
    sums = of_kind(found, "qlinearadd" if form == "onnx" else "add")
    assert [(one.inputs, one.outputs, one.detail) for one in sums] == [(640, 320, ""), (240, 120, "")]
    (gate,) = of_kind(found, "qlinearmul" if form == "onnx" else "mul")
    assert (gate.detail, gate.inputs) == ("broadcast", 140)


@pytest.mark.parametrize("form", FORMS)
def test_a_net_of_tokens_is_read_as_it_was_written(tmp_path: Path, form: str) -> None:
    builder = BUILDERS[form](0)
    found = operators(tmp_path, form, builder.finish(token_net(builder)))
    products = [one for one in of_kind(found, "matmul") if not one.weights]
    assert [(p.batches, p.rows, p.columns, p.depth) for p in products] == [(2, 16, 16, 4), (2, 16, 6, 16)]
    linear = [one for one in found if one.weights and one.kind in ("dense", "matmul")]
    assert [(one.rows, one.columns, one.depth) for one in linear] == [
        (16, 8, 12),
        (16, 8, 12),
        (16, 12, 12),
        (16, 12, 12),
        (1, 5, 12),
    ]


def test_onnx_runtime_fuses_the_nets_as_it_fuses_exported_models(tmp_path: Path) -> None:
    builder = OnnxNetBuilder(0)
    found = operators(tmp_path, "onnx", builder.finish(picture_net(builder)))
    kinds = Counter(one.family for one in found)
    # Nothing is left in float but the shortcut's padding, for which there is no integer kernel.
    assert kinds["dequantizelinear"] == 2
    assert kinds["quantizelinear"] == 2
    assert not [one for one in found if "float" in one.detail]


def test_a_stem_of_one_channel_is_a_depthwise_convolution_in_tflite(tmp_path: Path) -> None:
    builder = TfliteNetBuilder(0)
    x = builder.conv(builder.picture(8, 8, 1), 12, (3, 3))
    found = operators(tmp_path, "tflite", builder.finish(x))
    (stem,) = of_kind(found, "depthwise")
    assert (stem.detail, stem.rows, stem.columns, stem.depth) == ("multiplied", 64, 12, 9)


def test_the_first_norm_reads_tokens_before_they_are_turned_in_tflite(tmp_path: Path) -> None:
    builder = TfliteNetBuilder(0)
    x = builder.norm(builder.norm(builder.patches(builder.picture(8, 8, 1), 12, 2)))
    found = operators(tmp_path, "tflite", builder.finish(x))
    assert [one.detail for one in of_kind(found, "mean")] == ["01", "02", "02", "02"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("number", range(14))
def test_designed_nets_run(tmp_path: Path, form: str, number: int) -> None:
    content = write_net(number, BUILDERS[form](number))
    found = operators(tmp_path, form, content)
    run = run_onnx if form == "onnx" else run_tflite
    assert run(content).size == found[0].outputs
    assert sum(one.macs for one in found) < 1.2e8
    assert content == write_net(number, BUILDERS[form](number))


def test_every_kind_of_net_has_its_share() -> None:
    counts = Counter(kind_of(number).name for number in range(400))
    for kind in KINDS:
        assert counts[kind.name] == pytest.approx(4 * kind.share, abs=5)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("net.onnx", b"not a model", "cannot be read as an ONNX file"),
        ("net.tflite", b"not a model", "not a TFLite file"),
        ("net.pt", b"", "must end in .onnx or .tflite"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=words):
        read_operators(path)


@pytest.mark.parametrize("name", ["net.onnx", "net.tflite"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="cannot"):
        read_operators(tmp_path / name)
