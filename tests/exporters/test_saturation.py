"""Products of 8 bits that overflow: found out by running one, and answered by weights of 7 bits."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import export_nets as nets
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from exporters import proof
from exporters.base import Artifact
from exporters.onnx_int8 import quantize_int8
from exporters.proof import REDUCED, Prover
from exporters.quantization import Quantization
from exporters.saturation import EXACT, saturates
from exporters.to_onnx import to_float_onnx
from pipeline.data import load_dataset
from pipeline.plan import CompressionPlan
from pipeline.target import find_target
from pipeline.zoo import build

HERE = """
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from exporters.saturation import saturates


def run(path, inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs})[0]


place, samples = Path(sys.argv[1]), np.load(sys.argv[1] + "/samples.npy")
print(saturates(run, place))
exact = run(place / "float.onnx", samples)
print(*(float(np.abs(run(place / name, samples) - exact).mean()) for name in sys.argv[2:]))
"""


def in_process(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"input": inputs})[0]
    return found


def test_this_processor_is_as_its_flags_say(tmp_path: Path) -> None:
    x86 = platform.machine() in ("x86_64", "AMD64")
    flags = Path("/proc/cpuinfo").read_text() if x86 else ""
    assert saturates(in_process, tmp_path) == (x86 and "vnni" not in flags)


def test_a_target_that_cuts_sums_off_is_found_out(tmp_path: Path) -> None:
    assert saturates(lambda path, x: np.minimum(in_process(path, x), EXACT / 2), tmp_path)
    assert not saturates(lambda path, x: np.full((len(x), 8), EXACT * 1.001, np.float32), tmp_path)


def wide(seed: int = 0) -> nn.Module:
    """Large weights of one sign, and inputs to match: what overflows."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    with torch.no_grad():
        net[0].weight.uniform_(0.5, 1.0)
        net[2].weight.uniform_(0.5, 1.0)
    return net.eval()


@pytest.mark.slow
def test_weights_of_seven_bits_bring_back_what_overflow_takes(tmp_path: Path) -> None:
    """On a processor without VNNI, emulated; the files are this project's own."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64 (Debian: qemu-user) on an x86 machine")
    samples = np.random.default_rng(0).uniform(0.7, 1.0, (128, 64)).astype(np.float32)
    model = to_float_onnx(wide(), samples)
    onnx.save(model, tmp_path / "float.onnx")
    for name, reduced in (("plain.onnx", False), ("reduced.onnx", True)):
        onnx.save(quantize_int8(model, samples, Quantization(reduced=reduced)), tmp_path / name)
    np.save(tmp_path / "samples.npy", samples)
    command = [
        emulator,
        "-cpu",
        "Haswell",
        sys.executable,
        "-c",
        HERE,
        str(tmp_path),
        "plain.onnx",
        "reduced.onnx",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told, errors = done.stdout.splitlines()
    plain, reduced = map(float, errors.split())
    assert told == "True"
    assert reduced < 0.1 * plain


@pytest.mark.parametrize(("scores", "better"), [((60.0, 90.0), REDUCED), ((90.0, 90.0), "model.int8.onnx")])
def test_the_better_of_both_files_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, float], better: str
) -> None:
    asked: list[str] = []

    def metric(prover: Prover, artifact: Artifact, *_: object) -> float:
        asked.append(Path(artifact.path).name)
        return dict(zip(("model.int8.onnx", REDUCED), scores, strict=True))[asked[-1]]

    monkeypatch.setattr(proof, "saturates", lambda run, folder: True)
    monkeypatch.setattr(Prover, "metric", metric)
    prover = Prover(load_dataset("digits"), "")
    net = build("cnn", (1, 8, 8), 10).eval()
    made = prover.export_for(find_target("local-onnxruntime"), net, tmp_path, CompressionPlan())
    assert Path(made.path).name == better
    assert asked == ["model.int8.onnx", REDUCED]
    graph = onnx.load(tmp_path / REDUCED).graph
    stored = [
        onnx.numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8
    ]
    assert max(int(np.abs(each.astype(int)).max()) for each in stored) == 64
    other = prover.export_for(find_target("local-litert"), net, tmp_path, CompressionPlan())
    assert other.format == "tflite" and len(asked) == 2


def test_a_residual_net_with_weights_of_seven_bits_still_computes() -> None:
    model = to_float_onnx(nets.residual_net(), nets.samples(2))
    made = quantize_int8(model, nets.samples(32), Quantization(reduced=True))
    samples = nets.samples(16)
    outputs = [
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input": samples}
        )[0]
        for each in (model, made)
    ]
    assert float(np.abs(outputs[0] - outputs[1]).max() / np.ptp(outputs[0])) < 0.1
