from __future__ import annotations

from pathlib import Path

import export_nets as nets
import numpy as np
import pytest
from torch import nn

from device_bench.local import predict
from device_bench.protocol import BenchRequest, Failure, FailureKind, RuntimeName
from exporters.base import Artifact, ArtifactMetadata, Precision
from exporters.parity import ParityError, Tolerance, check_parity, to_layout
from exporters.to_onnx import OnnxExporter
from pipeline.result import Parity


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return 100.0 * float((outputs.argmax(1) == labels).mean())


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return nets.residual_net()


@pytest.fixture(scope="module")
def artifact(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    return OnnxExporter().export(net, path, "float32", nets.samples(1), ArtifactMetadata())


def check(
    artifact: Artifact, net: nn.Module, outputs: np.ndarray, tolerance: Tolerance = Tolerance()
) -> Parity:
    """Parity of an artifact that gives `outputs` for 40 samples, labelled as the net sees them."""
    inputs = nets.samples(40)
    labels = nets.torch_outputs(net, inputs).argmax(1)
    return check_parity(artifact, net, inputs, labels, accuracy, lambda _: outputs, tolerance=tolerance)


def with_precision(artifact: Artifact, precision: Precision) -> Artifact:
    return artifact.model_copy(update={"precision": precision})


def test_a_true_export_has_parity_in_its_own_runtime(net: nn.Module, artifact: Artifact) -> None:
    inputs = nets.samples(300)
    labels = nets.torch_outputs(net, inputs).argmax(1)
    request = BenchRequest(path=artifact.path, runtime=RuntimeName.ONNXRUNTIME)
    parity = check_parity(artifact, net, inputs, labels, accuracy, lambda given: predict(request, given))
    assert parity.samples == 300
    assert parity.max_error < 1e-4
    assert parity.mean_error <= parity.max_error
    assert parity.top1_agreement == parity.metric_torch == parity.metric_artifact == 100.0


def test_figures_are_those_of_the_definition(net: nn.Module, artifact: Artifact) -> None:
    expected = nets.torch_outputs(net, nets.samples(40))
    wrong = expected.copy()
    wrong[0] = np.roll(expected[0], 1)
    parity = check(with_precision(artifact, "int8"), net, wrong, Tolerance(int8_drop=3.0))
    assert parity.top1_agreement == pytest.approx(97.5)
    assert parity.metric_artifact == pytest.approx(97.5)
    assert parity.max_error == pytest.approx(np.abs(wrong - expected).max())
    assert parity.mean_error == pytest.approx(np.abs(wrong - expected).mean())


def test_a_float_artifact_that_leaves_torch_is_refused(net: nn.Module, artifact: Artifact) -> None:
    expected = nets.torch_outputs(net, nets.samples(40))
    with pytest.raises(ParityError, match="differs from torch"):
        check(artifact, net, expected + 0.05 * np.abs(expected).max())
    with pytest.raises(ParityError, match="differs from torch by nan"):
        check(artifact, net, np.full_like(expected, np.nan))
    with pytest.raises(ParityError, match="shape"):
        check(artifact, net, expected[:, :2])


def test_an_int8_artifact_is_judged_by_its_metric(net: nn.Module, artifact: Artifact) -> None:
    int8 = with_precision(artifact, "int8")
    wrong = np.roll(nets.torch_outputs(net, nets.samples(40)), 1, axis=1)
    with pytest.raises(ParityError, match="calibration"):
        check(int8, net, wrong)
    lower_is_better = Tolerance(int8_drop=2.0, higher_is_better=False)
    assert check(int8, net, wrong, lower_is_better).metric_artifact < 50.0


def test_an_artifact_that_does_not_run_is_refused(net: nn.Module, artifact: Artifact) -> None:
    failure = Failure(kind=FailureKind.CRASHED, message="signal 11")
    with pytest.raises(ParityError, match=r"crashed.*signal 11"):
        check_parity(artifact, net, nets.samples(2), np.zeros(2), accuracy, lambda _: failure)


def test_layouts() -> None:
    inputs = nets.samples(2)
    assert to_layout(inputs, "NHWC").shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(to_layout(inputs, "NHWC")[..., 1], inputs[:, 1])
    assert to_layout(inputs, "NCHW").shape == inputs.shape
    assert to_layout(inputs, "NHWC").flags.c_contiguous


def test_paths_are_named_in_errors(net: nn.Module, artifact: Artifact) -> None:
    with pytest.raises(ParityError, match=Path(artifact.path).name):
        check(artifact, net, np.zeros((40, 5), np.float32))


def test_heads_agree_each_for_itself(net: nn.Module, artifact: Artifact) -> None:
    inputs = nets.samples(40)
    expected = nets.torch_outputs(net, inputs)
    heads = (2, expected.shape[1] - 2)
    wrong = expected.copy()
    # The first head of one sample names its other class; the second head stays, whatever the whole says.
    wrong[0, :2] = expected[0, 1::-1]
    parity = check_parity(
        with_precision(artifact, "int8"),
        net,
        inputs,
        np.zeros((40, 2), np.int64),
        lambda outputs, truth: 100.0,
        lambda _: wrong,
        heads=heads,
    )
    assert parity.top1_agreement == pytest.approx(100 * (39 / 40 + 1) / 2)
