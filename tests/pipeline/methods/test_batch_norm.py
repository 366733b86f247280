from __future__ import annotations

import numpy as np
import pytest
import torch
from core_nets import TwoConv, Waves, liven_
from torch import nn

from pipeline.data.base import Preprocessing
from pipeline.methods.batch_norm import reestimate_


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def norm_of(channels: int) -> nn.Sequential:
    """A lone norm, so that what it sees is known."""
    return nn.Sequential(liven_(nn.BatchNorm2d(channels)))


@pytest.mark.parametrize(("samples", "passes"), [(20, [10, 10]), (25, [10, 10, 5]), (21, [10, 10]), (4, [4])])
def test_statistics_are_the_mean_over_passes(samples: int, passes: list[int]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (samples, 3, 4, 5)).astype(np.uint8)
    form = Preprocessing(scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    module = norm_of(3)
    reestimate_(module, raw, form, batch=10)
    seen = (raw / 255 - np.reshape(form.mean, (1, 3, 1, 1))) / np.reshape(form.std, (1, 3, 1, 1))
    starts = np.cumsum([0, *passes[:-1]])
    parts = [seen[start : start + size] for start, size in zip(starts, passes, strict=True)]
    means = np.mean([part.mean(axis=(0, 2, 3)) for part in parts], axis=0)
    variances = np.mean([part.var(axis=(0, 2, 3), ddof=1) for part in parts], axis=0)
    np.testing.assert_allclose(module[0].running_mean.numpy(), means, rtol=1e-5)
    np.testing.assert_allclose(module[0].running_var.numpy(), variances, rtol=1e-5)
    assert int(module[0].num_batches_tracked) == len(passes)


def test_weights_and_settings_stay_and_only_statistics_change() -> None:
    module = liven_(TwoConv())
    module.bn.momentum = 0.07
    before = {name: value.clone() for name, value in module.state_dict().items()}
    reestimate_(module, np.random.default_rng(0).normal(size=(12, 2, 5, 6)), Preprocessing())
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
    assert module.bn.momentum == 0.07
    assert not any(layer.training for layer in module.modules())


def test_one_dimensional_norms_are_estimated_too() -> None:
    module = Waves().eval()
    raw = np.random.default_rng(0).normal(size=(30, 2, 9)).astype(np.float32)
    reestimate_(module, raw, Preprocessing(layout="NCL"))
    with torch.no_grad():
        seen = module.conv1(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(module.norm.running_mean.numpy(), seen.mean(axis=(0, 2)), rtol=1e-4, atol=1e-6)


def test_dropout_stays_out_of_it() -> None:
    module = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(2)).train()
    raw = np.ones((8, 2, 3, 3), np.float32)
    reestimate_(module, raw, Preprocessing())
    assert torch.allclose(module[1].running_mean, torch.ones(2))
    assert all(layer.training for layer in module.modules())


def test_a_model_without_norms_is_left_alone() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    reestimate_(module, np.zeros((3, 4)), Preprocessing())
    assert module.training
