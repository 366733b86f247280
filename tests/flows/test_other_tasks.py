"""Values to predict and anomalies to find, from someone's own data to proved files, on both runtimes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

from pipeline.result import RunResult

pytestmark = pytest.mark.slow
Edgeloop = Callable[..., subprocess.CompletedProcess[str]]
TARGETS = ("local-onnxruntime", "local-litert")
AUTOENCODER = """
import numpy as np
import torch
from torch import nn


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 12), nn.ReLU())
        self.decode = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 64))

    def forward(self, x):
        return (self.decode(self.encode(x)) - x).square().mean(1, keepdim=True)


def trained():
    torch.manual_seed(0)
    net = Autoencoder()
    x = torch.from_numpy(np.load("odd.npz")["x"]) / 16
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(40):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            net(x[batch]).mean().backward()
            optimizer.step()
    return net
"""


def run(edgeloop: Edgeloop, place: Path, *options: object) -> RunResult:
    done = edgeloop(
        *("compress", "--policy", "random", "--trials", 2, "--recovery-epochs", 2, "--out", "runs"),
        *("--target", TARGETS[0], "--target", TARGETS[1], *options),
        cwd=place,
    )
    # 1: the budget was missed. So small a network may be slower in INT8.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (found,) = (place / "runs").iterdir()
    return RunResult.model_validate_json((found / "result.json").read_text())


def test_a_tabular_net_by_r2(tmp_path: Path, edgeloop: Edgeloop) -> None:
    x, y = load_diabetes(return_X_y=True, scaled=False)
    y = (y - y.mean()) / y.std()
    arrays = {"mean": x.mean(0), "std": x.std(0), "metric": np.array("r2")}
    np.savez(tmp_path / "diabetes.npz", x=x.astype(np.float32), y=y.astype(np.float32), **arrays)
    result = run(edgeloop, tmp_path, "--model", "mlp", "--data", "diabetes.npz", "--max-drop", 0.2)
    for target in TARGETS:
        found = result.targets[target]
        assert found.plain_int8 is not None and found.plain_int8.parity is not None
        # Of the variance; in INT8 as in float.
        assert -1.0 < found.float.accuracy < 1.0
        assert abs(found.plain_int8.accuracy - found.float.accuracy) < 0.05
        assert found.chosen.accuracy > found.float.accuracy - 0.3


def test_an_autoencoder_by_auc(tmp_path: Path, edgeloop: Edgeloop) -> None:
    x, digit = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, odd = x[order].astype(np.float32), digit[order] == 9
    usual, other = x[~odd], x[odd]
    arrays = {"x": usual[:1000], "y": np.zeros(1000, np.int64)}
    for name, part, some in (("search", usual[1000:1300], other[:90]), ("test", usual[1300:], other[90:])):
        arrays |= {
            f"x_{name}": np.concatenate([part, some]),
            f"y_{name}": np.repeat([0, 1], [len(part), len(some)]),
        }
    np.savez(tmp_path / "odd.npz", **arrays, scale=np.float32(1 / 16), metric=np.array("auc"))
    (tmp_path / "own.py").write_text(AUTOENCODER)
    result = run(edgeloop, tmp_path, "--model", "own:trained", "--data", "odd.npz", "--max-drop", 5)
    for target in TARGETS:
        found = result.targets[target]
        assert found.plain_int8 is not None
        assert found.float.accuracy > 65.0
        assert abs(found.plain_int8.accuracy - found.float.accuracy) < 3.0
        assert found.chosen.accuracy > found.float.accuracy - 8.0
