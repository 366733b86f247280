from __future__ import annotations

from pathlib import Path

import export_nets as nets
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from exporters.base import Artifact, ArtifactMetadata, sha256_of
from exporters.metadata import read_metadata
from exporters.onnx_int8 import quantize_int8
from exporters.onnx_ranges import BATCH
from exporters.to_onnx import OnnxExporter, to_float_onnx
from pipeline.data.base import Preprocessing
from pipeline.errors import ExportError

METADATA = ArtifactMetadata(
    plan_id="p1",
    task_fingerprint="f1",
    labels=("cat", "dog"),
    preprocessing=Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)),
)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return nets.residual_net()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def float_artifact(net: nn.Module, folder: Path) -> Artifact:
    return OnnxExporter().export(net, folder / "new" / "model.onnx", "float32", nets.samples(2), METADATA)


@pytest.fixture(scope="module")
def int8_artifact(net: nn.Module, folder: Path) -> Artifact:
    return OnnxExporter().export(net, folder / "model.int8.onnx", "int8", nets.samples(64), METADATA)


def run(artifact: Artifact, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    return session.run(None, {artifact.inputs[0].name: inputs})[0]


@pytest.mark.parametrize("batch", [1, 5])
def test_float_agrees_with_torch_at_any_batch_size(
    net: nn.Module, float_artifact: Artifact, batch: int
) -> None:
    inputs = nets.samples(batch)
    np.testing.assert_allclose(run(float_artifact, inputs), nets.torch_outputs(net, inputs), atol=1e-4)


def test_batch_norm_is_part_of_the_convolutions_and_the_mean_is_a_pooling(float_artifact: Artifact) -> None:
    kinds = [node.op_type for node in onnx.load(float_artifact.path).graph.node]
    assert kinds.count("Conv") == 13
    assert "BatchNormalization" not in kinds
    assert "GlobalAveragePool" in kinds and "ReduceMean" not in kinds


def test_the_artifact_describes_its_file(float_artifact: Artifact) -> None:
    path = Path(float_artifact.path)
    assert float_artifact.sha256 == sha256_of(path)
    assert float_artifact.file_bytes == path.stat().st_size
    assert float_artifact.input_layout == "NCHW"
    assert float_artifact.inputs[0].shape == (-1, *nets.SHAPE)
    assert float_artifact.outputs[0].shape == (-1, 5)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_int8_is_close_to_torch_and_nothing_stayed_float(net: nn.Module, int8_artifact: Artifact) -> None:
    inputs = nets.samples(64)
    expected = nets.torch_outputs(net, inputs)
    error = np.abs(run(int8_artifact, inputs) - expected).mean() / np.abs(expected).mean()
    assert error < 0.1
    assert int8_artifact.float_operators == ()


def test_int8_weights_are_per_channel_and_activations_uint8(int8_artifact: Artifact) -> None:
    model = onnx.load(int8_artifact.path)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        data, scale, zero = (values[name] for name in producer[node.input[1]].input)
        assert data.dtype == np.int8 and scale.shape == (data.shape[0],) and not zero.any()
        assert values[producer[node.input[0]].input[2]].dtype == np.uint8


def test_int8_runs_on_integer_kernels(int8_artifact: Artifact, folder: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(int8_artifact.path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 13
    assert "Conv" not in kinds


def test_metadata_comes_back(float_artifact: Artifact, int8_artifact: Artifact) -> None:
    assert read_metadata(Path(float_artifact.path)) == METADATA
    assert read_metadata(Path(int8_artifact.path)) == METADATA


def test_a_file_without_metadata_or_cut_short_is_an_error(float_artifact: Artifact, tmp_path: Path) -> None:
    model = onnx.load(float_artifact.path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ExportError, match=r"bare\.onnx carries no metadata"):
        read_metadata(tmp_path / "bare.onnx")
    (tmp_path / "cut.onnx").write_bytes(Path(float_artifact.path).read_bytes()[:500])
    with pytest.raises(ExportError, match=r"cut\.onnx"):
        read_metadata(tmp_path / "cut.onnx")
    with pytest.raises(ExportError, match=r"gone\.onnx"):
        read_metadata(tmp_path / "gone.onnx")


def test_operators_that_stayed_float_are_named(tmp_path: Path) -> None:
    inputs = nets.samples(4)
    artifact = OnnxExporter().export(
        nets.Attention().eval(), tmp_path / "a.onnx", "int8", inputs, ArtifactMetadata()
    )
    kinds = {name.rpartition("(")[2] for name in artifact.float_operators}
    assert "LayerNormalization)" in kinds
    assert "MatMul)" not in kinds


def test_calibration_runs_in_bounded_batches(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    from exporters import onnx_int8

    seen: list[int] = []
    original = onnx_int8._Batches.get_next

    def spy(self: onnx_int8._Batches) -> dict[str, np.ndarray] | None:
        batch = original(self)
        if batch is not None:
            seen.append(len(batch["input"]))
        return batch

    monkeypatch.setattr(onnx_int8._Batches, "get_next", spy)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    quantize_int8(to_float_onnx(layer, nets.samples(1)), nets.samples(70))
    assert sum(seen) == 70 and max(seen) <= BATCH


def test_no_calibration_sample_is_an_error() -> None:
    with pytest.raises(ExportError, match="sample"):
        to_float_onnx(nn.Linear(3, 2), np.zeros((0, 3), np.float32))
    model = to_float_onnx(nn.Linear(3, 2), np.zeros((1, 3), np.float32))
    with pytest.raises(ExportError, match="calibration"):
        quantize_int8(model, np.zeros((0, 3), np.float32))


class Unsupported(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.igamma(x.abs(), x.abs() + 1)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_an_operator_without_onnx_form_is_named() -> None:
    with pytest.raises(ExportError, match=r"operator \S*igamma of Unsupported has no ONNX form"):
        to_float_onnx(Unsupported(), nets.samples(1))


def test_code_that_cannot_be_traced_is_named_by_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"test_to_onnx\.py.*line \d+"):
        to_float_onnx(Branching(), nets.samples(1))
    assert capfd.readouterr() == ("", "")
