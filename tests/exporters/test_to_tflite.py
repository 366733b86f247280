from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import export_nets as nets
import numpy as np
import pytest
import torch
from torch import nn

from device_bench.local import predict
from device_bench.protocol import BenchRequest, RuntimeName
from exporters import exporter_for
from exporters.base import Artifact, ArtifactMetadata, sha256_of
from exporters.metadata import read_metadata
from exporters.parity import to_layout
from exporters.tflite_graph import operator_counts, unpack
from exporters.tflite_int8 import activation_ranges, quantize_int8
from exporters.to_tflite import TfliteExporter, channels_last, to_float_tflite
from pipeline.errors import ExportError

METADATA = ArtifactMetadata(plan_id="p1", task_fingerprint="f1", labels=("a", "b", "c", "d", "e"))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return nets.residual_net()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tflite")


@pytest.fixture(scope="module")
def float_artifact(net: nn.Module, folder: Path) -> Artifact:
    return TfliteExporter().export(net, folder / "model.tflite", "float32", nets.samples(1), METADATA)


@pytest.fixture(scope="module")
def int8_artifact(net: nn.Module, folder: Path) -> Artifact:
    return TfliteExporter().export(net, folder / "model.int8.tflite", "int8", nets.samples(32), METADATA)


def run(artifact: Artifact, inputs: np.ndarray) -> np.ndarray:
    request = BenchRequest(path=artifact.path, runtime=RuntimeName.LITERT)
    outputs = predict(request, to_layout(inputs, artifact.input_layout))
    assert isinstance(outputs, np.ndarray), outputs
    return outputs


def test_float_agrees_with_torch(net: nn.Module, float_artifact: Artifact) -> None:
    inputs = nets.samples(3)
    np.testing.assert_allclose(run(float_artifact, inputs), nets.torch_outputs(net, inputs), atol=1e-4)


def test_int8_is_close_to_torch_and_nothing_stayed_float(net: nn.Module, int8_artifact: Artifact) -> None:
    inputs = nets.samples(32)
    expected = nets.torch_outputs(net, inputs)
    error = np.abs(run(int8_artifact, inputs) - expected).mean() / np.abs(expected).mean()
    assert error < 0.1
    assert int8_artifact.float_operators == ()


def test_pictures_come_channels_last_and_nothing_is_transposed(
    float_artifact: Artifact, int8_artifact: Artifact
) -> None:
    for artifact in (float_artifact, int8_artifact):
        counts = operator_counts(Path(artifact.path))
        assert artifact.input_layout == "NHWC"
        assert artifact.inputs[0].shape == (1, 16, 16, 3)
        assert counts["CONV_2D"] == 13
        assert counts["TRANSPOSE"] == 0
        assert counts["QUANTIZE"] == counts["DEQUANTIZE"] == 0


def test_int8_goes_in_and_out(int8_artifact: Artifact) -> None:
    for info in (*int8_artifact.inputs, *int8_artifact.outputs):
        assert info.dtype == "int8"
        assert info.scale is not None and info.scale > 0
        assert info.zero_point is not None


def test_int8_weights_are_per_channel(int8_artifact: Artifact) -> None:
    graph = unpack(Path(int8_artifact.path).read_bytes()).subgraphs[0]
    weights = [tensor for tensor in graph.tensors if len(tensor.shape) == 4 and tensor.shape[1] == 3]
    assert len(weights) == 13
    assert all(len(tensor.quantization.scale) == tensor.shape[0] for tensor in weights)


def test_the_artifact_describes_its_file(int8_artifact: Artifact) -> None:
    path = Path(int8_artifact.path)
    assert int8_artifact.sha256 == sha256_of(path)
    assert int8_artifact.file_bytes == path.stat().st_size


def test_metadata_comes_back(float_artifact: Artifact, int8_artifact: Artifact, tmp_path: Path) -> None:
    assert read_metadata(Path(float_artifact.path)) == METADATA
    assert read_metadata(Path(int8_artifact.path)) == METADATA
    (tmp_path / "cut.tflite").write_bytes(b"\x1c\x00\x00\x00")
    with pytest.raises(ExportError, match=r"cut\.tflite: not a TFLite file"):
        read_metadata(tmp_path / "cut.tflite")


def test_ranges_are_the_smallest_and_largest_values(net: nn.Module, float_artifact: Artifact) -> None:
    inputs = nets.samples(5)
    ranges = activation_ranges(Path(float_artifact.path).read_bytes(), channels_last(inputs))
    source = ranges[float_artifact.inputs[0].name]
    assert source["min"].item() == inputs.min() and source["max"].item() == inputs.max()
    outputs = nets.torch_outputs(net, inputs)
    sink = ranges[float_artifact.outputs[0].name]
    np.testing.assert_allclose(
        [sink["min"].item(), sink["max"].item()], [outputs.min(), outputs.max()], atol=1e-4
    )


class Floor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 4, 3)
        self.after = nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(torch.floor(self.before(x)))


def test_operators_that_stayed_float_are_named(tmp_path: Path) -> None:
    artifact = TfliteExporter().export(
        Floor().eval(), tmp_path / "f.tflite", "int8", nets.samples(2), ArtifactMetadata()
    )
    assert len(artifact.float_operators) == 1
    assert artifact.float_operators[0].endswith("(FLOOR)")


class Unsupported(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.igamma(x.abs(), x.abs() + 1)


def test_an_operator_without_tflite_form_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"operator \S*igamma of Unsupported has no TFLite form"):
        to_float_tflite(Unsupported(), nets.samples(1))
    assert capfd.readouterr() == ("", "")


def test_no_calibration_sample_is_an_error(float_artifact: Artifact) -> None:
    with pytest.raises(ExportError, match="calibration"):
        quantize_int8(Path(float_artifact.path).read_bytes(), np.zeros((0, 16, 16, 3), np.float32))


QUIET = """
import numpy, torch
from pathlib import Path
from exporters import exporter_for
from exporters import exporter_for
from exporters.base import ArtifactMetadata
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
for form in ("onnx", "tflite"):
    samples = numpy.ones((2, 3, 8, 8), numpy.float32)
    exporter_for(form).export(net, Path("{folder}") / form, "int8", samples, ArtifactMetadata())
"""


def test_a_fresh_process_exports_without_a_word(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUIET.format(folder=tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "tflite").exists()


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_weights_that_training_left_channels_last_are_exported_as_they_are(tmp_path: Path, form: str) -> None:
    net = nets.residual_net().to(memory_format=torch.channels_last)
    path = tmp_path / f"model.{form}"
    artifact = exporter_for(form).export(net, path, "float32", nets.samples(1), METADATA)
    inputs = nets.samples(5)
    runtime = RuntimeName.LITERT if form == "tflite" else RuntimeName.ONNXRUNTIME
    found = predict(BenchRequest(path=str(path), runtime=runtime), to_layout(inputs, artifact.input_layout))
    np.testing.assert_allclose(found, nets.torch_outputs(net, inputs), atol=1e-4)
