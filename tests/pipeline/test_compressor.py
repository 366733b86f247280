from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from core_nets import Grouped, Joined, TwoConv, liven_
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from device_bench.errors import BadInputError, RunError
from pipeline.compressor import RECIPE_FILE, WEIGHTS_FILE, Recipe, compress, load_compressed, save_compressed
from pipeline.errors import PlanError, WeightsError
from pipeline.graph import ModelGraph
from pipeline.model import load_model
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.space import PlanSpace
from pipeline.task import ModelSpec
from pipeline.tracing import trace
from pipeline.zoo import build

FAMILIES = ("mlp", "cnn", "vgg", "resnet20", "mobilenetv2", "dscnn", "vit")
SHAPE, CLASSES = (1, 8, 8), 5


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@cache
def family(name: str) -> tuple[nn.Module, ModelGraph, PlanSpace]:
    torch.manual_seed(0)
    module = liven_(build(name, SHAPE, CLASSES))
    graph = trace(module, SHAPE)
    return module, graph, PlanSpace.of(graph, 8)


def widths_of(module: nn.Module) -> dict[str, int]:
    return {
        name: layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    }


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_compressed_model_has_the_planned_widths_and_runs(name: str, seed: int) -> None:
    module, graph, space = family(name)
    before = state_of(module)
    plan = space.sample(np.random.default_rng(seed))
    small = compress(module, graph, plan)
    planned = {layer: width for unit, width in plan.widths(graph).items() for layer in layers_of(graph, unit)}
    gone = {layer for block in graph.blocks if block.name in plan.removed for layer in block.layers}
    assert widths_of(small) == {layer: width for layer, width in planned.items() if layer not in gone}
    for block in plan.removed:
        assert isinstance(small.get_submodule(block), nn.Identity)
    with torch.no_grad():
        outputs = small(torch.randn(3, *SHAPE))
    assert outputs.shape == (3, CLASSES)
    assert outputs.isfinite().all()
    assert not small.training
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def layers_of(graph: ModelGraph, unit: str) -> tuple[str, ...]:
    return graph.unit_by_name[unit].layers


@pytest.mark.parametrize("name", FAMILIES)
def test_an_empty_plan_changes_nothing(name: str) -> None:
    module, graph, _ = family(name)
    x = torch.randn(2, *SHAPE)
    copy = compress(module, graph, CompressionPlan())
    with torch.no_grad():
        assert torch.equal(copy(x), module(x))
    assert copy is not module
    assert not {id(tensor) for tensor in copy.parameters()} & {id(tensor) for tensor in module.parameters()}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_loaded_as_it_was(name: str, tmp_path: Path) -> None:
    _, graph, space = family(name)
    spec = ModelSpec(source=name, input_shape=SHAPE, outputs=CLASSES)
    plan = space.plan(dict.fromkeys(space.choices, 0.5), space.removable[:1])
    small = liven_(compress(load_model(spec), graph, plan), seed=3)
    save_compressed(small, Recipe(model=spec, plan=plan), tmp_path)
    torch.manual_seed(99)
    again = load_compressed(tmp_path)
    x = torch.randn(3, *SHAPE)
    with torch.no_grad():
        assert torch.equal(again(x), small(x))
    assert not again.training
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS_FILE, RECIPE_FILE}


def test_no_pickle_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read")

    folder = saved_mlp(tmp_path)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    assert widths_of(load_compressed(folder))["head.0"] == 128


def saved_mlp(folder: Path) -> Path:
    """The MLP with its first layer halved."""
    spec = ModelSpec(source="mlp", input_shape=SHAPE, outputs=CLASSES)
    module, graph, space = family("mlp")
    plan = space.plan({"head.0": 0.5})
    save_compressed(compress(module, graph, plan), Recipe(model=spec, plan=plan), folder)
    return folder


def test_weights_of_another_plan_are_refused_by_name(tmp_path: Path) -> None:
    folder = saved_mlp(tmp_path)
    state = load_file(folder / WEIGHTS_FILE)
    state["head.0.weight"] = torch.zeros(256, 64)
    save_file(state, folder / WEIGHTS_FILE)
    with pytest.raises(WeightsError, match=r"head\.0\.weight \(file \[256, 64\], model \[128, 64\]\)"):
        load_compressed(folder)
    save_file({"other": torch.zeros(1)}, folder / WEIGHTS_FILE)
    with pytest.raises(WeightsError, match=r"missing: head\.0\.weight.*unexpected: other"):
        load_compressed(folder)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = saved_mlp(tmp_path)
    weights = folder / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(WeightsError, match="damaged"):
        load_compressed(folder)
    weights.unlink()
    with pytest.raises(WeightsError, match="do not exist"):
        load_compressed(folder)
    (folder / RECIPE_FILE).write_text('{"model": 3}')
    with pytest.raises(BadInputError, match=r"model\.json is no recipe"):
        load_compressed(folder)
    with pytest.raises(BadInputError, match="cannot read"):
        load_compressed(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_a_failure_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        saved_mlp(tmp_path / "file" / "below")


def test_a_plan_of_another_model_is_refused() -> None:
    module, graph, _ = family("mlp")
    plan = CompressionPlan(units={"features.0": UnitChoice(keep_ratio=0.5)})
    with pytest.raises(PlanError, match=r"features\.0.*head\.0"):
        compress(module, graph, plan)


@pytest.mark.parametrize(
    ("module", "shape", "silent"),
    [
        (TwoConv(), (2, 5, 6), {"conv1": [1, 2]}),
        (Joined(), (1, 5, 5), {"left": [0, 3], "right": [1, 4, 5]}),
        (Grouped(), (3, 6, 6), {"grouped": [1, 2, 6, 7, 8, 9, 12, 15]}),
    ],
    ids=["chain", "joined", "grouped"],
)
def test_channels_that_do_nothing_leave_without_a_trace(
    module: nn.Module, shape: tuple[int, ...], silent: dict[str, list[int]]
) -> None:
    liven_(module)
    graph = trace(module, shape)
    for name, channels in silent.items():
        silence_(module, name, channels)
    keep = {
        name: UnitChoice(keep_ratio=1 - len(channels) / graph.unit_by_name[name].width)
        for name, channels in silent.items()
    }
    small = compress(module, graph, CompressionPlan(units=keep))
    x = torch.randn(4, *shape)
    with torch.no_grad():
        torch.testing.assert_close(small(x), module(x), rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in module.parameters())


# Who reads a layer's channels, and from which of its own inputs on.
READERS = {"conv1": ("conv2", 0), "left": ("after", 0), "right": ("after", 4), "grouped": ("conv2", 0)}


def silence_(module: nn.Module, layer: str, channels: list[int]) -> None:
    """Nothing writes the layer's channels and nothing reads them."""
    convolution = module.get_submodule(layer)
    convolution.weight.data[channels] = 0
    convolution.bias.data[channels] = 0
    if layer == "conv1":
        for tensor in (module.bn.weight.data, module.bn.bias.data):
            tensor[channels] = 0
    reader, first = READERS[layer]
    module.get_submodule(reader).weight.data[:, [first + channel for channel in channels]] = 0


@pytest.mark.parametrize("asked", [(8, 24, 56), (8, 16, 40), (16, 24, 40), (8, 8, 8), (7, 14, 31)])
def test_channels_carried_by_a_shortcut_stay_in_place(asked: tuple[int, int, int]) -> None:
    """Option A lays channel i of a stage onto channel i + padding of the next.

    With all channels that leave at nought, the cut network must compute what the whole one does; a shift by
    one channel anywhere would show.
    """
    module = liven_(build("resnet20", SHAPE, CLASSES))
    graph = trace(module, SHAPE)
    trunks = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
    generator = np.random.default_rng(sum(asked))
    kept = kept_through_shortcuts(asked, generator)
    for unit, channels in zip(trunks, kept, strict=True):
        silence_trunk_(
            module, graph, unit, sorted(set(range(graph.unit_by_name[unit].width)) - set(channels))
        )
    keep = {
        unit: UnitChoice(keep_ratio=width / graph.unit_by_name[unit].width)
        for unit, width in zip(trunks, asked, strict=True)
    }
    small = compress(module, graph, CompressionPlan(units=keep))
    x = torch.randn(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(small(x), module(x), rtol=1e-4, atol=1e-4)


def kept_through_shortcuts(asked: tuple[int, int, int], rng: np.random.Generator) -> list[list[int]]:
    """Channels that stay in each stage: what comes in, and a choice of the padding, half from either side."""
    stages = [sorted(rng.permutation(16)[: asked[0]].tolist())]
    before = 16
    for width, whole in zip(asked[1:], (32, 64), strict=True):
        front = (whole - before) // 2
        added = width - len(stages[-1])
        head = rng.permutation(front)[: added // 2].tolist()
        tail = (rng.permutation(front)[: added - added // 2] + front + before).tolist()
        stages.append(sorted([*head, *(front + channel for channel in stages[-1]), *tail]))
        before = whole
    return stages


def silence_trunk_(module: nn.Module, graph: ModelGraph, unit: str, channels: list[int]) -> None:
    """No layer writes the channels of the trunk, and none reads them."""
    for layer in graph.unit_by_name[unit].layers:
        module.get_submodule(layer).weight.data[channels] = 0
        norm = module.get_submodule(layer.replace("conv", "bn"))
        for tensor in (norm.weight.data, norm.bias.data):
            tensor[channels] = 0
    stage = {"conv1": 1, "layer2.0.conv2": 2, "layer3.0.conv2": 3}[unit]
    readers = [f"layer{stage}.{number}.conv1" for number in range(3) if stage == 1 or number > 0]
    readers += [f"layer{stage + 1}.0.conv1"] if stage < 3 else ["linear"]
    for reader in readers:
        module.get_submodule(reader).weight.data[:, channels] = 0
