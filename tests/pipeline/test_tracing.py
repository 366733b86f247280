from __future__ import annotations

from pathlib import Path

import core_nets
import pytest
import torch
from core_nets import (
    Flattening,
    Grouped,
    Halved,
    Joined,
    Mismatched,
    PackedAttention,
    TwoConv,
    TwoOutputs,
    Untraceable,
    Waves,
)
from torch import nn

from pipeline.errors import ModelError
from pipeline.tracing import trace
from pipeline.zoo import build

FAMILIES = ("mlp", "cnn", "vgg", "resnet20", "mobilenetv2", "dscnn", "vit")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_resnet20_is_what_its_paper_says() -> None:
    graph = trace(build("resnet20", (3, 32, 32), 10), (3, 32, 32))
    # He et al. (2015): conv 3→16 on 32²; three blocks each of 16 on 32², 32 on 16², 64 on 8²; linear 64→10.
    by_hand = 3 * 16 * 9 * 32**2
    for before, width, side in ((16, 16, 32), (16, 32, 16), (32, 64, 8)):
        by_hand += (before * width + 5 * width * width) * 9 * side**2
    assert graph.macs == by_hand + 64 * 10 == 40_551_040
    assert graph.parameters == 269_722  # 0.27 M in the paper
    assert sum(layer.macs for layer in graph.layers) == graph.macs
    assert len(graph.layers) == 20


def test_resnet20_has_three_trunks_and_nine_inner_widths() -> None:
    graph = trace(build("resnet20", (3, 32, 32), 10), (3, 32, 32))
    prunable = [unit for unit in graph.units if unit.prunable]
    trunks = {unit.name: unit for unit in prunable if len(unit.layers) > 1}
    assert len(prunable) == 12
    assert [unit.name for unit in graph.units if not unit.prunable] == ["linear"]
    assert {name: unit.width for name, unit in trunks.items()} == {
        "conv1": 16,
        "layer2.0.conv2": 32,
        "layer3.0.conv2": 64,
    }
    assert trunks["conv1"].layers == ("conv1", *(f"layer1.{number}.conv2" for number in range(3)))
    assert trunks["layer3.0.conv2"].layers == tuple(f"layer3.{number}.conv2" for number in range(3))
    assert {unit.name: unit.source for unit in graph.units if unit.source} == {
        "layer2.0.conv2": "conv1",
        "layer3.0.conv2": "layer2.0.conv2",
    }
    assert {unit.name for unit in prunable} - trunks.keys() == {
        f"layer{stage}.{number}.conv1" for stage in (1, 2, 3) for number in range(3)
    }


def test_resnet20_can_lose_the_seven_blocks_that_keep_their_shape() -> None:
    graph = trace(build("resnet20", (3, 32, 32), 10), (3, 32, 32))
    names = ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]
    assert [block.name for block in graph.blocks] == names
    for block in graph.blocks:
        assert block.layers == (f"{block.name}.conv1", f"{block.name}.conv2")
        assert block.units == (f"{block.name}.conv1",)
    # Both convolutions of layer1.0: 16 → 16, 3×3, on 32×32.
    assert graph.blocks[0].macs == 2 * 9 * 16 * 16 * 32 * 32


def test_a_small_net_counted_by_hand() -> None:
    graph = trace(TwoConv(), (2, 5, 6))
    conv1, conv2, head = graph.layers
    assert (conv1.macs, conv2.macs, head.macs) == (2 * 4 * 9 * 30, 4 * 3 * 30, 3 * 2)
    assert graph.macs == 2160 + 360 + 6
    assert (conv1.parameters, conv2.parameters, head.parameters) == (2 * 4 * 9 + 4, 12, 8)
    assert graph.parameters == 76 + 12 + 8 + 2 * 4
    assert (conv1.activation_bytes, conv2.activation_bytes, head.activation_bytes) == (480, 360, 8)
    assert (conv1.kernel, conv1.stride, conv1.groups) == ((3, 3), (1, 1), 1)
    assert [(unit.name, unit.width, unit.prunable) for unit in graph.units] == [
        ("conv1", 4, True),
        ("conv2", 3, True),
        ("head", 2, False),
    ]


def test_attention_counts_towards_the_macs_of_a_vision_transformer() -> None:
    tokens, width, layers = 16, 64, 4
    graph = trace(build("vit", (1, 8, 8), 10), (1, 8, 8))
    patches = tokens * width * 4
    attention = 4 * tokens * width * width + 2 * tokens * tokens * width
    mlp = 2 * tokens * width * 2 * width
    assert graph.macs == patches + layers * (attention + mlp) + width * 10


def test_heads_lose_channels_together() -> None:
    graph = trace(build("vit", (1, 8, 8), 10), (1, 8, 8))
    projections = [unit for unit in graph.units if unit.heads > 1]
    assert projections
    for unit in projections:
        assert unit.layers[0].rpartition(".")[2] in {"q", "k", "v"}
        assert (unit.heads, unit.step, unit.min_width) == (4, 4, 4)
    assert len(graph.blocks) == 8


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_outputs_are_kept_from_pruning(name: str) -> None:
    graph = trace(build(name, (1, 8, 8), 7), (1, 8, 8))
    assert [unit.width for unit in graph.units if not unit.prunable] == [7]
    assert all(unit.reason for unit in graph.units if not unit.prunable)
    members = [layer for unit in graph.units for layer in unit.layers]
    assert sorted(members) == sorted(set(members))


@pytest.mark.parametrize("name", FAMILIES)
def test_tracing_leaves_the_module_as_it_is(name: str) -> None:
    module = build(name, (1, 8, 8), 7).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trace(module, (1, 8, 8))
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())


@pytest.mark.parametrize(
    ("module", "shape", "units"),
    [
        (Flattening(), (1, 4, 4), {"conv": 4}),
        (Joined(), (1, 5, 5), {"left": 4, "right": 6, "after": 3}),
        (Waves(), (2, 9), {"conv1": 6, "conv2": 6}),
    ],
)
def test_flattened_joined_and_one_dimensional_nets(
    module: nn.Module, shape: tuple[int, ...], units: dict[str, int]
) -> None:
    graph = trace(module, shape)
    assert {unit.name: unit.width for unit in graph.units if unit.prunable} == units


def test_layers_say_whose_channels_they_read() -> None:
    reads = {layer.name: layer.reads for layer in trace(Joined(), (1, 5, 5)).layers}
    assert reads["left"] == reads["right"] == ()
    assert set(reads["after"]) == {"left", "right"}
    resnet = {
        layer.name: layer.reads for layer in trace(build("resnet20", (3, 32, 32), 10), (3, 32, 32)).layers
    }
    assert resnet["conv1"] == ()
    assert resnet["layer1.0.conv1"] == ("conv1",)
    assert resnet["layer1.0.conv2"] == ("layer1.0.conv1",)
    assert resnet["layer2.2.conv1"] == ("layer2.0.conv2",)
    assert resnet["linear"] == ("layer3.0.conv2",)


@pytest.mark.parametrize(
    ("module", "shape", "kept", "reason"),
    [
        (Grouped(), (3, 6, 6), "conv1", "does not run once it is pruned"),
        (Halved(), (5,), "wide", "does not run once it is pruned"),
        (PackedAttention(), (5, 16), "qkv", "coupled with each other"),
    ],
)
def test_what_cannot_be_cut_says_why_and_the_rest_still_prunes(
    module: nn.Module, shape: tuple[int, ...], kept: str, reason: str
) -> None:
    units = trace(module, shape).unit_by_name
    assert not units[kept].prunable
    assert reason in units[kept].reason
    assert {name for name, unit in units.items() if not unit.prunable} == {kept, "head"}
    assert any(unit.prunable for unit in units.values())


def test_a_grouped_convolution_goes_by_one_channel_of_each_group() -> None:
    unit = trace(Grouped(), (3, 6, 6)).unit_by_name["grouped"]
    assert (unit.width, unit.heads, unit.step, unit.min_width) == (16, 4, 4, 4)


@pytest.mark.parametrize("kind", [Untraceable, Mismatched])
def test_a_model_that_fails_is_named_with_its_line(kind: type[nn.Module]) -> None:
    source = Path(core_nets.__file__)
    lines = source.read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines, start=1) if f"the line of {kind.__name__}" in line)
    with pytest.raises(ModelError) as caught:
        trace(kind(), (4,))
    assert f"{source}:{number}" in str(caught.value)
    assert "(4,)" in str(caught.value)


def test_a_model_for_other_inputs_is_an_error_with_the_shape() -> None:
    with pytest.raises(ModelError, match=r"shape \(3, 5, 6\)"):
        trace(TwoConv(), (3, 5, 6))


def test_two_outputs_are_an_error() -> None:
    with pytest.raises(ModelError, match="must return one tensor; got tuple"):
        trace(TwoOutputs(), (4,))


def test_what_branches_on_its_data_is_not_offered_for_removal() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = x + self.layer(x) if x.sum() >= 0 else x
            return result

    assert trace(nn.Sequential(Branching(), nn.Linear(4, 2)), (4,)).blocks == ()
    steady = nn.Sequential(_Adding(), nn.Linear(4, 2))
    assert [block.name for block in trace(steady, (4,)).blocks] == ["0"]


class _Adding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.layer(x)
        return result
