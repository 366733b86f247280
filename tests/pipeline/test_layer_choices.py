"""Plans that speak of layers: what is legal, what equal plans are called, and what becomes of the module."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from device_bench.errors import BadInputError
from pipeline.compressor import Recipe, compress, load_compressed, save_compressed
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.layer_choice import LayerChoice, LowRank
from pipeline.legality import choices_of, most_rank
from pipeline.methods.layer_methods import (
    apply_,
    hold_,
    layer_choices,
    release_,
    settled_plan,
    stored_bytes,
)
from pipeline.model import load_model
from pipeline.plan import CompressionPlan, RecoveryChoice, UnitChoice
from pipeline.plan_file import read_plan
from pipeline.task import ModelSpec
from pipeline.tracing import trace

SPEC = ModelSpec(source="resnet20", input_shape=(3, 32, 32), outputs=10)


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return load_model(SPEC)


@pytest.fixture(scope="module")
def graph(module: torch.nn.Module) -> ModelGraph:
    return trace(module, SPEC.input_shape)


def plan(**layers: dict[str, object]) -> CompressionPlan:
    named = {name.replace("_", "."): choice for name, choice in layers.items()}
    return CompressionPlan.model_validate({"layers": named})


def low_rank(kind: str, **how: float) -> dict[str, object]:
    return {"low_rank": {"kind": kind, **how}}


def test_a_plan_without_layers_is_called_as_before() -> None:
    told = json.loads(CompressionPlan().canonical_json())
    assert "layers" not in told and "calibration" not in told
    assert CompressionPlan(layers={"conv1": LayerChoice()}).plan_id == CompressionPlan().plan_id
    assert plan(conv1={"sparsity": 0.5}).plan_id != CompressionPlan().plan_id
    assert CompressionPlan(calibration="mse").plan_id != CompressionPlan().plan_id


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (plan(nope={"sparsity": 0.5}), "names layer 'nope'; the model's layers with weights are: conv1"),
        (
            plan(linear=low_rank("spatial", rank=1)),
            "low rank of kind 'spatial' is not for Linear; ask for svd",
        ),
        (plan(conv1=low_rank("svd", rank=1)), "is not for Conv2d; ask for spatial or channel"),
        (
            plan(conv1=low_rank("channel", rank=17)),
            "rank 17 is above the matrix's, which is 16; give 1 to 16",
        ),
    ],
)
def test_what_is_not_legal_names_the_layer_and_the_reason(
    graph: ModelGraph, asked: CompressionPlan, reason: str
) -> None:
    with pytest.raises(PlanError) as error:
        asked.checked(graph)
    assert reason in str(error.value)


def test_a_layer_of_a_removed_block_cannot_be_changed(graph: ModelGraph) -> None:
    asked = CompressionPlan(removed=("layer1.1",), layers={"layer1.1.conv1": LayerChoice(sparsity=0.5)})
    with pytest.raises(PlanError, match="and removes the block it is in"):
        asked.checked(graph)


def test_exactly_one_of_rank_ratio_and_energy() -> None:
    for how in ({}, {"rank": 2, "ratio": 0.5}):
        with pytest.raises(ValueError, match="exactly one of rank, ratio and energy"):
            LowRank(kind="svd", **how)  # type: ignore[arg-type]


def test_every_layer_takes_what_is_legal_for_it(graph: ModelGraph) -> None:
    asked = {
        "*": LayerChoice(sparsity=0.3, low_rank=LowRank(kind="svd", ratio=0.5)),
        "conv1": LayerChoice(precision="float32"),
    }
    found = choices_of(asked, graph, gone={"layer1.1.conv1"})
    assert found["conv1"] == LayerChoice(precision="float32")
    assert found["layer1.0.conv1"] == LayerChoice(sparsity=0.3)
    assert found["linear"].low_rank is not None
    assert "layer1.1.conv1" not in found
    assert [*found][:2] == ["conv1", "layer1.0.conv1"] and [*found][-1] == "linear"


def test_the_matrixs_rank(graph: ModelGraph) -> None:
    layers = {layer.name: layer for layer in graph.layers}
    assert most_rank(layers["conv1"], "channel") == 16
    assert most_rank(layers["conv1"], "spatial") == 9
    assert most_rank(layers["linear"], "svd") == 10


def test_prune_then_factorise_then_thin_and_back_from_files(
    module: torch.nn.Module, graph: ModelGraph, tmp_path: Path
) -> None:
    asked = CompressionPlan(
        units={"layer2.1.conv1": UnitChoice(keep_ratio=0.5)},
        removed=("layer1.2",),
        layers={
            "layer2.1.conv1": LayerChoice(low_rank=LowRank(kind="channel", energy=0.7), sparsity=0.5),
            "linear": LayerChoice(low_rank=LowRank(kind="svd", ratio=0.3)),
        },
    )
    settled = settled_plan(asked, graph, compress(module, graph, asked.model_copy(update={"layers": {}})))
    rank = settled.layers["layer2.1.conv1"].low_rank.rank  # type: ignore[union-attr]
    assert rank is not None and 1 <= rank <= 16
    made = compress(module, graph, settled)
    apply_(made, layer_choices(settled, graph))
    first, second = made.get_submodule("layer2.1.conv1")
    assert first.weight.shape == (rank, 32, 3, 3) and second.weight.shape == (16, rank, 1, 1)
    assert float((first.weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    save_compressed(made, Recipe(model=SPEC, plan=settled), tmp_path)
    again = load_compressed(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again(x), made.eval()(x))


def test_a_share_of_all_weights_becomes_one_of_each_layer(module: torch.nn.Module, graph: ModelGraph) -> None:
    asked = CompressionPlan(
        sparsity=0.5, layers={"conv1": LayerChoice(sparsity=0.1), "linear": LayerChoice(precision="float32")}
    )
    settled = settled_plan(asked, graph, module)
    assert settled.sparsity == 0.0
    assert settled.layers["conv1"].sparsity == 0.1
    assert settled.layers["linear"].precision == "float32"
    shares = {name: choice.sparsity for name, choice in settled.layers.items() if name != "conv1"}
    weights = {name: module.get_submodule(name).weight.detach() for name in shares}
    zeros = sum(shares[name] * weights[name].numel() for name in shares)
    assert zeros / sum(weight.numel() for weight in weights.values()) == pytest.approx(0.5, abs=1e-3)
    assert max(shares.values()) - min(shares.values()) > 0.1
    # One threshold: what stays of any layer is larger than what goes of any other.
    edges = [float(w.abs().flatten().sort().values[int(shares[n] * w.numel())]) for n, w in weights.items()]
    assert max(edges) / min(edges) < 1.1


def test_a_plan_begins_dense_where_zeros_come_step_by_step() -> None:
    layers = {"conv1": LayerChoice(sparsity=0.5, precision="int4")}
    at_once = CompressionPlan(layers=layers)
    assert at_once.where_training_begins() == at_once
    begun = at_once.model_copy(update={"recovery": RecoveryChoice(sparsity_schedule="cubic")})
    assert begun.where_training_begins().layers == {"conv1": LayerChoice(precision="int4")}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"recovery": {"patience": 1, "sparsity_schedule": "cubic"}}, "leave out one of recovery.patience"),
        (
            {"corrections": ["equalisation"], "recovery": {"quantization_epochs": 1.0}},
            "leave out one of corrections",
        ),
        (
            {
                "corrections": ["equalisation"],
                "layers": {"conv1": {"weights": {"method": "ternary", "bits": 2}}},
            },
            "equalisation would scale them out of it",
        ),
    ],
)
def test_methods_that_undo_each_other(graph: ModelGraph, asked: dict[str, object], told: str) -> None:
    with pytest.raises(PlanError, match=told):
        CompressionPlan.model_validate(asked).checked(graph)


def test_a_rank_that_pruning_has_put_out_of_reach(module: torch.nn.Module, graph: ModelGraph) -> None:
    asked = CompressionPlan(
        units={"layer2.1.conv1": UnitChoice(keep_ratio=0.25)},
        layers={"layer2.1.conv1": LayerChoice(low_rank=LowRank(kind="channel", rank=20))},
    )
    with pytest.raises(PlanError, match="rank 20 is above that of its 8 x 288 matrix; give 1 to 8"):
        compress(module, graph, asked)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[layers.conv1]\nprecison = 'int4'", "known keys: low_rank, sparsity, soft, weights, precision"),
        ("[layers.conv1]\nprecision = 'int3'", "'int4', 'dynamic' or 'float16'"),
        ("[layers.conv1]\nsparsity = 1.0", "less than 1"),
        ("[units.conv1]\nkeep_ratio = 0.0", "greater than 0"),
        ("calibration = 'best'", "'minmax', 'percentile', 'entropy' or 'mse'"),
        ("methods = 1", "known keys: units, removed, layers"),
        ("[layers", "is not valid TOML"),
    ],
)
def test_a_plan_file_says_what_is_wrong(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(BadInputError) as error:
        read_plan(path)
    assert told in str(error.value)


def test_a_plan_file_comes_back(tmp_path: Path) -> None:
    asked = plan(conv1={"precision": "int4"}, linear=low_rank("svd", rank=3))
    (tmp_path / "plan.json").write_text(asked.model_dump_json())
    assert read_plan(tmp_path / "plan.json") == asked
    with pytest.raises(BadInputError, match="cannot read the plan"):
        read_plan(tmp_path / "missing.toml")


def test_weights_take_their_form_and_keep_it_in_training(module: torch.nn.Module, graph: ModelGraph) -> None:
    asked = plan(
        linear={"weights": {"method": "codebook", "bits": 2}}, conv1={"weights": {"method": "binary"}}
    )
    made = compress(module, graph, asked)
    choices = layer_choices(asked, graph)
    apply_(made, choices)
    linear, conv1 = made.get_submodule("linear"), made.get_submodule("conv1")
    assert len(torch.unique(linear.weight)) == 4
    assert all(len(torch.unique(channel)) <= 2 for channel in conv1.weight)
    before = linear.weight.detach().clone()
    hold_(made, choices)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.5)
    made(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    release_(made)
    assert len(torch.unique(linear.weight)) <= 4
    assert not torch.equal(linear.weight, before)
    assert stored_bytes(made, choices) == {"linear": 64 * 10 * 2 // 8 + 16, "conv1": 16 * 27 // 8 + 64}


def test_one_step_for_the_whole_network(module: torch.nn.Module, graph: ModelGraph) -> None:
    asked = plan(**{"*": {"weights": {"method": "network_wide", "bits": 6}}})
    made = compress(module, graph, asked)
    weights = [made.get_submodule(layer.name).weight.detach() for layer in graph.layers]
    largest = max(float(weight.abs().max()) for weight in weights)
    apply_(made, layer_choices(asked, graph))
    for layer in graph.layers:
        level = made.get_submodule(layer.name).weight / (largest / 31)
        torch.testing.assert_close(level, level.round(), atol=1e-3, rtol=0)


def test_bits_that_a_form_has_not_are_an_error(graph: ModelGraph) -> None:
    with pytest.raises(PlanError, match="layer 'conv1': codebook weights have 1 to 8 bits; got 9"):
        plan(conv1={"weights": {"method": "codebook", "bits": 9}}).checked(graph)
    with pytest.raises(PlanError, match="for every layer is legal for none of them: companding weights"):
        plan(**{"*": {"weights": {"method": "companding", "bits": 12}}}).checked(graph)
