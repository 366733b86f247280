"""Small real models, made once a session, and the runtime that breaks on demand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bench_cases import request_for, save_onnx

from device_bench.protocol import BenchRequest, RuntimeName
from device_bench.runtimes import MODULES

HERE = Path(__file__).parent

# Made in another process: the converters warn, log and take memory, and none of it is under test here.
MAKE_TFLITE = """
import sys
import numpy as np, torch, litert_torch
from ai_edge_quantizer import quantizer, recipe
folder = sys.argv[1]
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(), torch.nn.Linear(8, 4),
).eval()
samples = torch.randn(32, 3, 8, 8)
litert_torch.convert(model, (samples[:1],)).export(folder + "/float.tflite")
with torch.no_grad():
    np.savez(folder + "/expected.npz", inputs=samples.numpy(), outputs=model(samples).numpy())
program = torch.export.export(model, (samples[:1],))
torch.export.save(program, folder + "/float.pt2")
torch.onnx.export(program, dynamo=True, verbose=False).save(folder + "/float.onnx")
maker = quantizer.Quantizer(folder + "/float.tflite")
maker.load_quantization_recipe(recipe.static_wi8_ai8())
ranges = maker.calibrate({"serving_default": [{"args_0": s[None]} for s in samples.numpy()]})
maker.quantize(ranges).export_model(folder + "/int8.tflite")
"""


@pytest.fixture(scope="session")
def tflite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small net as float.tflite, int8.tflite, float.onnx and float.pt2.

    expected.npz: its `inputs` [32, 3, 8, 8] and torch's `outputs` [32, 4].
    """
    folder = tmp_path_factory.mktemp("tflite")
    done = subprocess.run(
        [sys.executable, "-c", MAKE_TFLITE, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def onnx_weight() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((6, 5)).astype(np.float32)


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory, onnx_weight: np.ndarray) -> Path:
    """y = relu(x @ weight), x float32 [n, 6], batch left open."""
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    save_onnx(path, onnx_weight, batch="n")
    return path


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Makes requests for files that say how the runtime shall behave."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setitem(MODULES, RuntimeName.LITERT, "faulty_runtime")

    def make(behaviour: str, wall_seconds: float = 60.0) -> BenchRequest:
        path = tmp_path / f"{behaviour.split()[0]}-{len(list(tmp_path.iterdir()))}.tflite"
        path.write_text(behaviour)
        return request_for(path, wall_seconds)

    return make
