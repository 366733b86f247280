from __future__ import annotations

import pytest
import torch

from device_bench.errors import BadInputError
from pipeline.data import DATASETS
from pipeline.errors import ModelError
from pipeline.tracing import trace
from pipeline.zoo import MODELS, build

SHAPES = {"digits": (1, 8, 8), "fashion": (1, 28, 28), "cifar": (3, 32, 32), "spoken": (1, 49, 40)}
# ResNets of other depths differ in the number of blocks alone.
FAMILIES = ("mlp", "cnn", "vgg", "resnet20", "mobilenetv2", "dscnn", "vit")
REMOVABLE = {"mlp": 0, "cnn": 0, "vgg": 0, "resnet20": 7, "mobilenetv2": 7, "dscnn": 0, "vit": 8}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_every_shape_and_prunes_everywhere(name: str, shape: tuple[int, ...]) -> None:
    model = build(name, shape, 7).eval()
    with torch.no_grad():
        outputs = model(torch.randn(3, *shape))
        last = model(torch.randn(3, *shape).contiguous(memory_format=torch.channels_last))
    assert outputs.shape == last.shape == (3, 7)
    assert outputs.std(dim=0).min() > 0
    graph = trace(model, shape)
    assert [unit.width for unit in graph.units if not unit.prunable] == [7]
    assert len(graph.blocks) == REMOVABLE[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns(name: str) -> None:
    torch.manual_seed(1)
    model = build(name, (1, 8, 8), 4).train()
    inputs, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 4
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 20), ("resnet32", 32), ("resnet56", 56)])
def test_a_resnet_has_as_many_layers_as_its_name_says(name: str, layers: int) -> None:
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    assert sum(isinstance(layer, kinds) for layer in build(name, (3, 32, 32), 10).modules()) == layers


def test_the_mlp_takes_tables_and_the_others_say_that_they_do_not() -> None:
    assert build("mlp", (13,), 1)(torch.zeros(2, 13)).shape == (2, 1)
    with pytest.raises(ModelError, match=r"got \[13\]; use mlp"):
        build("cnn", (13,), 1)
    with pytest.raises(ModelError, match="at least one output"):
        build("cnn", (1, 8, 8), 0)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInputError, match=r"unknown model 'resnet21'; did you mean .*resnet20 or"):
        build("resnet21", (3, 32, 32), 10)


def test_the_mapping_is_consistent() -> None:
    for name, entry in MODELS.items():
        assert entry.name == name
        assert entry.default_data in DATASETS
        assert build(name, (3, 32, 32), 10) is not None
