from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_graphs import chain_graph, context_of, residual_graph

from pipeline.graph import ModelGraph
from pipeline.policy.layer_work import MEASURES, LayerWork
from pipeline.tables.codec import PlanCodec

TARGET = "local-litert"


def read(graph: ModelGraph, **reads: str) -> ModelGraph:
    """The graph with layers that read the outputs of units."""
    layers = [
        one.model_copy(update={"reads": (reads[one.name],)}) if one.name in reads else one
        for one in graph.layers
    ]
    return graph.model_copy(update={"layers": tuple(layers)})


def work_of(graph: ModelGraph) -> LayerWork:
    context = context_of(graph)
    return LayerWork.of(context, TARGET, PlanCodec(context.space))


def test_a_narrowed_unit_leaves_less_to_write_and_less_to_read() -> None:
    work = work_of(read(chain_graph(), second="first", classes="second"))
    codec = work.codec
    plan = codec.space.plan({"first": 0.5})
    there, inputs, outputs, product = work.left(codec.encode(plan)[None])[0].T
    half = plan.widths(codec.space.graph)["first"] / 12
    assert half < 1.0
    assert there.tolist() == [1.0, 1.0, 1.0]
    assert outputs.tolist() == [half, 1.0, 1.0]
    assert inputs.tolist() == [1.0, half, 1.0]
    assert product.tolist() == [half, half, 1.0]


def test_two_halves_multiply() -> None:
    work = work_of(read(chain_graph(), second="first"))
    row = work.codec.encode(work.codec.space.plan({"first": 0.5, "second": 0.5}))
    _, inputs, outputs, product = work.left(row[None])[0, 1]
    assert product == pytest.approx(inputs * outputs)
    assert product < min(inputs, outputs) < 1.0


def test_without_knowledge_of_who_reads_inputs_stay_whole() -> None:
    work = work_of(chain_graph())
    row = work.codec.encode(work.codec.space.plan({"first": 0.5}))
    assert work.left(row[None])[0, :, 1].tolist() == [1.0, 1.0, 1.0]


def test_the_layers_of_a_removed_block_do_nothing() -> None:
    work = work_of(residual_graph())
    names = [layer.name for layer in work.codec.space.graph.layers]
    left = work.left(work.codec.encode(work.codec.space.plan({}, ["layer1.1"]))[None])[0]
    gone = [name for name, forms in zip(names, left, strict=True) if not forms.any()]
    assert gone == ["layer1.1.conv1", "layer1.1.conv2"]
    assert (left[[name not in gone for name in names]] == 1.0).all()


def test_shares_add_up_to_one_by_every_measure() -> None:
    graph = residual_graph()
    context = replace(context_of(graph), shares={TARGET: {"conv1": 0.75, "layer3.2.conv1": 0.25}})
    sizes = LayerWork.of(context, TARGET, PlanCodec(context.space)).sizes
    np.testing.assert_allclose(sizes.sum(axis=0), 1.0)
    latency = sizes[:, MEASURES.index("latency")]
    inner = [layer.name for layer in graph.layers].index("layer3.2.conv1")
    assert latency[inner] == pytest.approx(0.25)
    # The trunk's share is that of all of its layers.
    trunk = [
        place for place, one in enumerate(graph.layers) if one.name in graph.unit_by_name["conv1"].layers
    ]
    assert latency[trunk].sum() == pytest.approx(0.75)


def test_where_the_target_cannot_tell_macs_stand_in() -> None:
    work = work_of(residual_graph())
    latency, macs = (work.sizes[:, MEASURES.index(name)] for name in ("latency", "MACs"))
    np.testing.assert_array_equal(latency, macs)
