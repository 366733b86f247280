from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from core_nets import dataset_of
from torch import nn

from pipeline.methods.quantization_aware import (
    ActivationRange,
    AwareModule,
    WeightStep,
    train_aware_,
)
from pipeline.methods.recovery import Lesson
from pipeline.methods.views import Views
from pipeline.plan import RecoveryChoice
from pipeline.trained_range import fingerprint_of, read_ranges, write_ranges
from pipeline.zoo import build

FAMILIES = {
    "mlp": (1, 8, 8),
    "cnn": (1, 8, 8),
    "resnet20": (3, 32, 32),
    "vgg": (3, 32, 32),
    "mobilenetv2": (3, 32, 32),
    "dscnn": (1, 49, 10),
    "vit": (3, 32, 32),
}


def net_of(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    module = build(name, FAMILIES[name], 10).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            layer.running_mean.normal_(0.0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return module, torch.randn(6, *FAMILIES[name])


def bypass(aware: AwareModule) -> None:
    for step in aware.modules():
        if isinstance(step, ActivationRange | WeightStep):
            step.bypassed = True


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_as_int8_and_gives_its_weights_back(name: str) -> None:
    module, x = net_of(name)
    before = copy.deepcopy(module)
    aware = AwareModule(module, x)
    aware.train()
    aware(x).square().sum().backward()
    trained = {n: p for n, p in aware.graph_module.named_parameters() if p.ndim > 1 and p.grad is not None}
    assert all(p.grad.abs().sum() > 0 for p in trained.values()) and trained  # type: ignore[union-attr]
    with torch.no_grad():
        for tensor in trained.values():
            tensor.mul_(1.01)
    aware.eval()
    aware.write_back_(module)
    bypass(aware)
    with torch.no_grad():
        torch.testing.assert_close(module(x), aware(x), atol=1e-4, rtol=1e-3)
        assert not torch.allclose(module(x), before(x), atol=1e-5)


def test_values_are_those_of_int8() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 2)).eval()
    x = torch.randn(5, 2, 6, 6)
    aware = AwareModule(module, x).train()
    aware(x)
    aware.eval()

    # By torch's own fake quantization: input, weights, what leaves the ReLU, and the outputs.
    def int8(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
        scale = (high - low) / 255
        return torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, 255)

    def weights(values: torch.Tensor) -> torch.Tensor:
        scale = values.detach().abs().flatten(1).amax(1) / 127
        zero = torch.zeros(len(scale), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(values, scale, zero, 0, -127, 127)

    first, last = module[0], module[3]
    with torch.no_grad():
        given = int8(x, float(x.min()), float(x.max()))
        hidden = nn.functional.conv2d(given, weights(first.weight), first.bias).relu()
        hidden = int8(hidden, 0.0, float(hidden.max())).flatten(1)
        wanted = nn.functional.linear(hidden, weights(last.weight), last.bias)
        wanted = int8(wanted, min(0.0, float(wanted.min())), max(0.0, float(wanted.max())))
        torch.testing.assert_close(aware(x), wanted)
    assert len(aware.points) == 3


def test_a_range_follows_its_batches_slowly() -> None:
    point = ActivationRange().train()
    point(torch.tensor([1.0, 3.0]))
    assert (float(point.low), float(point.high)) == (0.0, 3.0)
    point(torch.tensor([-2.0, 23.0]))
    assert float(point.low) == pytest.approx(-0.1) and float(point.high) == pytest.approx(4.0)
    point.eval()
    point(torch.tensor([100.0]))
    assert float(point.high) == pytest.approx(4.0)


def test_fingerprints_are_of_the_values_before_quantization() -> None:
    module, x = net_of("cnn")
    aware = AwareModule(module, x).train()
    aware(x)
    ranges = aware.trained_ranges(x)
    assert ranges[0].fingerprint == pytest.approx(fingerprint_of(x.numpy()))
    with torch.no_grad():
        assert ranges[-1].fingerprint == pytest.approx(fingerprint_of(module(x).numpy()), rel=1e-4, abs=1e-5)
    assert all(found.low <= 0.0 <= found.high for found in ranges)


def test_training_keeps_zeros_and_lowers_the_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = (rng.normal(size=(120, 2, 6, 6)) + y[:, None, None, None]).astype(np.float32)
    dataset = dataset_of(x, y.astype(np.int64))
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    )
    with torch.no_grad():
        module[0].weight[:, 0] = 0.0
    module.eval()
    choice = RecoveryChoice(quantization_epochs=4, learning_rate=5.0)
    lesson = Lesson(dataset, Views(dataset, 0), None, choice)
    inputs, truth = torch.from_numpy(dataset.train.x), torch.from_numpy(dataset.train.y)

    def loss() -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(module(inputs), truth))

    before = loss()
    ranges = train_aware_(module, lesson, inputs[:32], {"0"}, lambda share, text: None)
    assert loss() < 0.9 * before
    assert not module[0].weight[:, 0].any() and module[0].weight[:, 1].all()
    write_ranges(ranges, tmp_path)
    assert read_ranges(tmp_path) == ranges
    assert read_ranges(tmp_path / "elsewhere") == ()
