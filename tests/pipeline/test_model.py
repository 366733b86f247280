from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from device_bench.errors import BadInputError
from pipeline.errors import ModelError, WeightsError
from pipeline.model import load_model
from pipeline.task import ModelSpec
from pipeline.zoo import build

SHAPE = (1, 8, 8)
OWN = """
from torch import nn

def sized(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], outputs))

def plain():
    return sized((1, 8, 8), 10)

def three(a, b, c):
    return None

def wrong():
    return "a network"

def broken():
    raise ValueError("no luck")

class Bad(nn.Module):
    def forward(self, x):
        return x @ x
"""


def _spec(source: str = "cnn", weights: Path | None = None, outputs: int = 10) -> ModelSpec:
    given = None if weights is None else os.fspath(weights)
    return ModelSpec(source=source, weights=given, input_shape=SHAPE, outputs=outputs)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")  # restores sys.path afterwards


def test_weights_come_back_as_they_were_saved(tmp_path: Path) -> None:
    model = build("cnn", SHAPE, 10)
    state = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_model(_spec(weights=tmp_path / "w.safetensors"))
    assert not loaded.training
    x = torch.randn(2, *SHAPE)
    assert torch.equal(loaded(x), model.eval()(x))


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = dict(build("cnn", SHAPE, 10).state_dict())
    state["other"] = torch.zeros(3)
    del state["features.0.weight"]
    state["head.bias"] = torch.zeros(11)
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError) as caught:
        load_model(_spec(weights=path))
    assert "missing: features.0.weight;" in str(caught.value)
    assert "unexpected: other;" in str(caught.value)
    assert "of another shape: head.bias (file [11], model [10]);" in str(caught.value)
    save_file({}, path)
    with pytest.raises(WeightsError, match=r"features.1.running_var and \d+ more"):
        load_model(_spec(weights=path))


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="do not exist"):
        load_model(_spec(weights=tmp_path / "none.safetensors"))
    pickled = tmp_path / "w.pt"
    torch.save({}, pickled)
    with pytest.raises(WeightsError, match=r"must be a .safetensors file"):
        load_model(_spec(weights=pickled))
    short = tmp_path / "short.safetensors"
    save_file({"a": torch.zeros(100)}, short)
    short.write_bytes(short.read_bytes()[:50])
    with pytest.raises(WeightsError, match="damaged"):
        load_model(_spec(weights=short))


@pytest.mark.parametrize("name", ["sized", "plain"])
def test_a_network_of_ones_own(own_module: None, name: str) -> None:
    assert load_model(_spec(f"own_networks:{name}"))(torch.zeros(3, *SHAPE)).shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "needs 3 arguments"),
        ("wrong", "gave str"),
        ("broken", r"ValueError: no luck \(at .*own_networks.py:17\)"),
        ("Bad", r"gives \[2, 1, 8, 8\] for two samples; the data needs \[2, 10\]"),
        ("absent", "no callable 'absent'"),
    ],
)
def test_a_callable_that_does_not_serve(own_module: None, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(_spec(f"own_networks:{name}"))


def test_a_model_that_cannot_run_says_where(own_module: None) -> None:
    spec = ModelSpec(source="own_networks:Bad", input_shape=(1, 8, 9), outputs=10)
    with pytest.raises(ModelError, match=r"does not run on two samples.*\(at .*own_networks.py:21\)"):
        load_model(spec)


def test_outputs_that_are_not_the_datas(own_module: None) -> None:
    with pytest.raises(ModelError, match=r"gives \[2, 10\] for two samples; the data needs \[2, 7\]"):
        load_model(_spec("own_networks:plain", outputs=7))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInputError, match="did you mean mobilenetv2"):
        load_model(_spec("mobilenet"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("network", "file"),
    [
        ("resnet20", "resnet20_cifar10_jpeg"),
        ("resnet20", "resnet20_cifar10"),
        ("resnet32", "resnet32_cifar10"),
    ],
)
def test_the_published_weights_fit_to_the_letter(network: str, file: str) -> None:
    root = os.environ.get("EDGELOOP_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("EDGELOOP_DATA names no folder with the data sets")
    path = Path(root) / "weights" / f"{file}.safetensors"
    spec = ModelSpec(source=network, weights=os.fspath(path), input_shape=(3, 32, 32), outputs=10)
    state = load_model(spec).state_dict()
    given = load_file(path)
    kept = {name for name in state if name in given or "num_batches_tracked" not in name}
    assert kept == set(given)
    assert all(torch.equal(state[name], tensor) for name, tensor in given.items())
