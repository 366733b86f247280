"""An INT8 file against torch with the same numbers: exact, and parted where it was tampered with."""

from __future__ import annotations

from pathlib import Path

import export_nets as nets
import numpy as np
import onnx
import pytest
from torch import nn

from exporters import exporter_for
from exporters.base import Artifact, ArtifactMetadata
from exporters.exactness import check_exactness

CALIBRATION, INPUTS = nets.samples(64), nets.samples(16) * 0.9
FORMS = {"onnx": "model.onnx", "tflite": "model.tflite"}


def exported(net: nn.Module, form: str, folder: Path) -> Artifact:
    return exporter_for(form).export(net, folder / FORMS[form], "int8", CALIBRATION, ArtifactMetadata())


@pytest.mark.parametrize("form", FORMS)
def test_every_layer_of_a_residual_net_is_exact(tmp_path: Path, form: str) -> None:
    net = nets.residual_net()
    found = check_exactness(exported(net, form, tmp_path), net, CALIBRATION, INPUTS)
    assert found.least_alone >= 99.9
    assert found.operators > 10 and found.samples == 16
    assert found.within_one_step > 50.0


def test_a_layer_that_computes_something_else_is_named(tmp_path: Path) -> None:
    net = nets.residual_net()
    artifact = exported(net, "onnx", tmp_path)
    model = onnx.load(artifact.path)
    (weights,) = [t for t in model.graph.initializer if t.name == "layer2.0.conv1.weight_quantized"]
    values = onnx.numpy_helper.to_array(weights).copy()
    values[0] = np.clip(values[0].astype(np.int32) + 20, -127, 127).astype(np.int8)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(model, artifact.path)
    found = check_exactness(artifact, net, CALIBRATION, INPUTS)
    assert found.least_alone < 99.9
    assert found.parts_at == found.least_alone_at == "layer2.0.relu1"


def test_a_file_of_another_network_is_far_off(tmp_path: Path) -> None:
    artifact = exported(nets.residual_net(), "onnx", tmp_path)
    other = nets.residual_net()
    for tensor in other.parameters():
        tensor.data.mul_(-0.7)
    found = check_exactness(artifact, other, CALIBRATION, INPUTS)
    assert found.least_alone < 50.0
    assert found.parts_at is not None
