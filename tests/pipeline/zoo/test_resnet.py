from __future__ import annotations

import pytest
import torch

from pipeline.zoo.resnet import BasicBlock, OptionAShortcut, build_resnet20


@pytest.mark.parametrize("side", [8, 7])
def test_the_shortcut_takes_every_second_pixel_and_adds_zero_channels(side: int) -> None:
    shortcut = OptionAShortcut(3, 8)
    x = torch.randn(2, 3, side, side)
    y = shortcut(x)
    assert torch.equal(y[:, 2:5], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 5:].any()
    assert not list(shortcut.parameters())
    assert not list(shortcut.buffers())
    shortcut.in_channels, shortcut.out_channels = 2, 4
    assert shortcut(x[:, :2]).shape[1] == 4


def test_a_block_whose_body_gives_nothing_is_its_shortcut() -> None:
    block = BasicBlock(4, 4, 1).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 4, 6, 6)
    assert torch.equal(block(x), x)


def test_parameter_names_are_those_of_the_published_weights() -> None:
    names = set(build_resnet20((3, 32, 32), 10).state_dict())
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    norms = ["bn1", *(f"{block}.bn{number}" for block in blocks for number in (1, 2))]
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"{norm}.{statistic}" for norm in norms for statistic in statistics}
    expected |= {"conv1.weight", "linear.weight", "linear.bias"}
    expected |= {f"{block}.conv{number}.weight" for block in blocks for number in (1, 2)}
    assert names == expected
