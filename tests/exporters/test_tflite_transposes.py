from __future__ import annotations

from pathlib import Path

import export_nets as nets
import numpy as np
import pytest
from torch import nn

from device_bench.local import predict
from device_bench.protocol import BenchRequest, RuntimeName
from exporters.base import ArtifactMetadata
from exporters.tflite_graph import operator_counts
from exporters.to_tflite import channels_last, to_float_tflite, write_tflite

# The converter goes back to channels first for the padding; a flatten of channels first really needs one.
NETS = {"padded": (nets.Padded(12), 0), "flattened": (nets.Narrow(12), 1)}


@pytest.mark.parametrize("name", NETS)
def test_transposes_leave_and_the_result_stays(tmp_path: Path, name: str) -> None:
    net, needed = NETS[name]
    assert isinstance(net, nn.Module)
    inputs = nets.samples(3)
    content = to_float_tflite(net.eval(), inputs)
    artifact = write_tflite(content, tmp_path / "model.tflite", "float32", ArtifactMetadata())
    assert operator_counts(Path(artifact.path))["TRANSPOSE"] == needed
    request = BenchRequest(path=artifact.path, runtime=RuntimeName.LITERT)
    outputs = predict(request, np.ascontiguousarray(channels_last(inputs)))
    assert isinstance(outputs, np.ndarray), outputs
    np.testing.assert_allclose(outputs, nets.torch_outputs(net, inputs), atol=1e-5)
