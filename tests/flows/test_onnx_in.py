"""An ONNX file that someone else made goes in; the run does not need it afterwards."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from pipeline.compressor import load_compressed
from pipeline.data import load_dataset
from pipeline.result import RunResult


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small CNN for digits as an ONNX file, its weights in another file beside it."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    ).eval()
    path = tmp_path / "theirs" / "model.onnx"
    path.parent.mkdir()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            net,
            (torch.zeros(2, 1, 8, 8),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=True,
            verbose=False,
        )
    assert len(list(path.parent.iterdir())) == 2
    return path


def test_onnx_in(
    model: Path,
    tmp_path: Path,
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    only_run: Callable[[Path], Path],
) -> None:
    done = edgeloop(
        *("compress", "theirs/model.onnx", "--data", "digits", "--target", "local-onnxruntime"),
        *("--policy", "random", "--max-drop", 100, "--trials", 2, "--recoveries", 1, "--recovery-epochs", 1),
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    shutil.rmtree(model.parent)
    run = tmp_path / "elsewhere"
    only_run(tmp_path / "runs").rename(run)

    inputs = load_dataset("digits").search.x[:32].astype(np.float32) / 16
    session = onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs})
    for folder in (run, run / "targets" / "local-onnxruntime"):
        with torch.no_grad():
            rebuilt = load_compressed(folder)(torch.from_numpy(inputs)).numpy()
        np.testing.assert_allclose(outputs, rebuilt, atol=1e-3)

    again = edgeloop("compress", "--resume", run, cwd=tmp_path)
    assert again.returncode in (0, 1), again.stdout + again.stderr
    result = RunResult.model_validate_json((run / "result.json").read_text())
    assert result.trials == 2
    assert [unit.width for unit in result.units] == [16, 24, 10]
