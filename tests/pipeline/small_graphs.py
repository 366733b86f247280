"""Model graphs made by hand, and a make-believe world that measures plans on them in no time."""

from __future__ import annotations

from device_bench.protocol import (
    Conditions,
    DeviceInfo,
    Latency,
    Measurement,
    Memory,
    RuntimeName,
)
from pipeline.experience import Trial
from pipeline.graph import Block, Layer, ModelGraph, Unit
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Effect, PolicyContext
from pipeline.space import PlanSpace
from pipeline.target import LOCAL_TARGETS
from pipeline.task import Budget

FLOAT_ACCURACY = 90.0


def layer(name: str, in_size: int, out_size: int, positions: int) -> Layer:
    macs = 9 * in_size * out_size * positions
    return Layer(
        name=name,
        operator="Conv2d",
        in_size=in_size,
        out_size=out_size,
        macs=macs,
        parameters=9 * in_size * out_size,
        activation_bytes=4 * out_size * positions,
    )


def unit(name: str, layers: list[Layer], **more: object) -> Unit:
    return Unit(
        name=name,
        layers=tuple(one.name for one in layers),
        width=layers[0].out_size,
        macs=sum(one.macs for one in layers),
        parameters=sum(one.parameters for one in layers),
        activation_bytes=sum(one.activation_bytes for one in layers),
        **more,
    )


def graph_of(layers: list[Layer], units: list[Unit], blocks: list[Block]) -> ModelGraph:
    return ModelGraph(
        units=tuple(units),
        blocks=tuple(blocks),
        layers=tuple(layers),
        input_shape=(3, 32, 32),
        macs=sum(one.macs for one in layers),
        parameters=sum(one.parameters for one in layers),
        activation_bytes=sum(one.activation_bytes for one in layers),
    )


def residual_graph(blocks_a_stage: int = 3) -> ModelGraph:
    """A CIFAR ResNet: trunks of 16, 32 and 64 channels, each the source of the next; ten classes."""
    layers = [layer("conv1", 3, 16, 1024)]
    units, blocks = [], []
    trunk, trunk_name, source, before = [layers[0]], "conv1", None, 16
    for stage, (width, positions) in enumerate([(16, 1024), (32, 256), (64, 64)]):
        for number in range(blocks_a_stage):
            name = f"layer{stage + 1}.{number}"
            inner = layer(f"{name}.conv1", before, width, positions)
            outer = layer(f"{name}.conv2", width, width, positions)
            layers += [inner, outer]
            units.append(unit(inner.name, [inner]))
            if number == 0 and stage > 0:
                units.append(unit(trunk_name, trunk, source=source))
                trunk, source, trunk_name = [], trunk_name, outer.name
            else:
                blocks.append(block(name, [inner, outer], inner.name))
            trunk.append(outer)
            before = width
    units.append(unit(trunk_name, trunk, source=source))
    head = layer("linear", 64, 10, 1)
    units.append(unit("linear", [head], prunable=False, reason="its channels are the model's outputs"))
    return graph_of([*layers, head], units, blocks)


def block(name: str, layers: list[Layer], inner_unit: str) -> Block:
    return Block(
        name=name,
        layers=tuple(one.name for one in layers),
        units=(inner_unit,),
        macs=sum(one.macs for one in layers),
        parameters=sum(one.parameters for one in layers),
    )


def chain_graph() -> ModelGraph:
    """Two hidden layers and nothing to remove: 12 and 6 wide."""
    layers = [layer("first", 8, 12, 1), layer("second", 12, 6, 1), layer("classes", 6, 3, 1)]
    first, second, classes = layers
    return graph_of(
        layers,
        [unit("first", [first]), unit("second", [second]), unit("classes", [classes], prunable=False)],
        [],
    )


def heads_graph() -> ModelGraph:
    """An attention's projection of 3 heads and a trunk it cannot be told apart from by its width."""
    projection, trunk = layer("attention.qkv", 48, 48, 16), layer("attention.proj", 48, 48, 16)
    return graph_of(
        [projection, trunk],
        [unit("attention.qkv", [projection], step=3, min_width=3, heads=3), unit("attention.proj", [trunk])],
        [],
    )


def latency_of(graph: ModelGraph, plan: CompressionPlan, target: str) -> float:
    """Milliseconds in the make-believe world: one target feels layers most, the other MACs."""
    gone = {name for one in graph.blocks if one.name in plan.removed for name in one.layers}
    keep = {name: plan.keep_ratio(one.name) for one in graph.units for name in one.layers}
    left = [one for one in graph.layers if one.name not in gone]
    macs = sum(one.macs * keep.get(one.name, 1.0) for one in left) / graph.macs
    layers = len(left) / len(graph.layers)
    per_layer = 0.9 if "onnx" in target else 0.2
    return 0.3 * (per_layer * layers + (1.0 - per_layer) * macs)


def accuracy_of(graph: ModelGraph, plan: CompressionPlan) -> float:
    """Narrow early units and removed blocks cost most; what changes together costs more than its sum."""
    widths = [(i, 1.0 - plan.keep_ratio(one.name)) for i, one in enumerate(graph.units)]
    lost = sum(cut**2 * 10.0 / (1.0 + i) for i, cut in widths) + 4.0 * len(plan.removed)
    return max(10.0, FLOAT_ACCURACY - lost**1.2)


def trial_of(graph: ModelGraph, plan: CompressionPlan, number: int, origin: str) -> Trial:
    return Trial(
        number=number,
        plan=plan,
        origin=origin,
        accuracy=accuracy_of(graph, plan),
        latency_ms={name: latency_of(graph, plan, name) for name in LOCAL_TARGETS},
    )


def context_of(graph: ModelGraph, seed: int = 0, budget: Budget | None = None) -> PolicyContext:
    """A context in the make-believe world, with the effect of every single change."""
    space = PlanSpace.of(graph, width_step=8)
    changes = [Change(block=name) for name in space.removable]
    changes += [Change(unit=n, keep_ratio=k) for n, ks in space.choices.items() for k in ks if k < 1.0]
    return PolicyContext(
        graph=graph,
        space=space,
        budget=budget or Budget(),
        targets=tuple(LOCAL_TARGETS.values()),
        float_accuracy=FLOAT_ACCURACY,
        base_latency_ms={name: latency_of(graph, CompressionPlan(), name) for name in LOCAL_TARGETS},
        effects={change: effect_of(graph, space, change) for change in changes},
        seed=seed,
    )


def effect_of(graph: ModelGraph, space: PlanSpace, change: Change) -> Effect:
    keep = {change.unit: change.keep_ratio} if change.unit and change.keep_ratio else {}
    plan = space.plan(keep, [change.block] if change.block else [])
    return Effect(
        accuracy=accuracy_of(graph, plan),
        latency_ms={name: latency_of(graph, plan, name) for name in LOCAL_TARGETS},
    )


def measurement(
    p50_ms: float, peak_bytes: int = 4 << 20, file_bytes: int = 300_000, emulated: bool = False
) -> Measurement:
    """A measurement with these figures; its other figures follow or stand still."""
    return Measurement(
        samples_ns=(int(p50_ms * 1e6),),
        latency=Latency(
            samples=1,
            min_ms=p50_ms,
            mean_ms=p50_ms,
            std_ms=0.0,
            p50_ms=p50_ms,
            p90_ms=p50_ms,
            p95_ms=p50_ms,
            p99_ms=p50_ms,
            p50_low_ms=p50_ms,
            p50_high_ms=p50_ms,
        ),
        memory=Memory(peak_bytes=peak_bytes, file_bytes=file_bytes),
        conditions=Conditions(
            device=DeviceInfo(
                hostname="board",
                machine="x86_64",
                system="Linux",
                cpu_model="a processor",
                cpu_count=2,
                memory_bytes=1 << 33,
                emulated=emulated,
            ),
            runtime=RuntimeName.ONNXRUNTIME,
            runtime_version="1.31",
            accelerator="cpu",
            threads=1,
        ),
    )
