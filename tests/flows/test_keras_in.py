"""A SavedModel goes in; the run keeps it as ONNX, and needs neither it nor TensorFlow afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from pipeline.compressor import load_compressed
from pipeline.keras_import import NEEDED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(find_spec(module) for module in NEEDED), reason="the extra keras is not installed"
    ),
]
WRITER = Path(__file__).parents[1] / "pipeline" / "keras_files.py"


def test_keras_in(
    tmp_path: Path,
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    only_run: Callable[[Path], Path],
) -> None:
    subprocess.run([sys.executable, str(WRITER), str(tmp_path)], check=True, capture_output=True)
    x = np.random.default_rng(0).random((400, 3, 8, 8), np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(400) % 10)
    done = edgeloop(
        *("compress", "--model", "saved", "--data", "data.npz", "--target", "local-onnxruntime"),
        *("--policy", "random", "--max-drop", 100, "--trials", 2, "--recoveries", 0, "--rehearsals", 0),
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    shutil.rmtree(tmp_path / "saved")
    run = only_run(tmp_path / "runs")
    session = onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: x[:32]})
    with torch.no_grad():
        rebuilt = load_compressed(run)(torch.from_numpy(x[:32])).numpy()
    np.testing.assert_allclose(outputs, rebuilt, atol=1e-3)
