"""Tables recorded in the make-believe world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from known_tasks import KnownTask
from small_graphs import FLOAT_ACCURACY, accuracy_of, latency_of, residual_graph

from pipeline.data.base import Metric
from pipeline.graph import ModelGraph
from pipeline.plan import CompressionPlan
from pipeline.search import changes_to_probe, plan_of
from pipeline.space import PlanSpace
from pipeline.tables.codec import PlanCodec
from pipeline.tables.task_table import SettingRecord, TableHeader, TaskTable
from pipeline.target import LOCAL_TARGETS
from pipeline.task import ModelSpec

SETTINGS = {f"{name}@1": name for name in LOCAL_TARGETS}


def known_table(model: str = "known", data: str = "made-up", plans: int = 60, blocks: int = 3) -> TaskTable:
    """All single changes and `plans` plans at random of a residual graph, in both local settings."""
    graph = residual_graph(blocks)
    space = PlanSpace.of(graph, width_step=8)
    codec = PlanCodec(space)
    rng = np.random.default_rng(0)
    tried = [plan_of(space, change) for change in changes_to_probe(graph, space)]
    tried += [space.sample(rng) for _ in range(plans)]
    rows = np.unique(np.stack([codec.encode(plan) for plan in tried]), axis=0)
    kept = [codec.decode(row) for row in rows]
    return TaskTable(
        header_of(graph, model, data),
        rows,
        np.array([accuracy_of(graph, plan) for plan in kept], np.float32),
        {
            setting: np.array([latency_of(graph, plan, target) for plan in kept], np.float32)
            for setting, target in SETTINGS.items()
        },
    )


def header_of(graph: ModelGraph, model: str, data: str) -> TableHeader:
    return TableHeader(
        model=ModelSpec(source=model, input_shape=(3, 32, 32), outputs=10),
        family=model,
        data=data,
        metric=Metric.ACCURACY,
        float_accuracy=FLOAT_ACCURACY,
        chance=KnownTask(graph).chance,
        samples=800,
        graph=graph,
        width_step=8,
        settings={
            setting: SettingRecord(
                target=LOCAL_TARGETS[target], base_latency_ms=latency_of(graph, CompressionPlan(), target)
            )
            for setting, target in SETTINGS.items()
        },
        device="make-believe",
    )


def write_lists(folder: Path) -> tuple[Path, Path]:
    """Two lists of tasks with their tables beside them: (to train on, held out)."""
    for model, data, blocks in (("known", "made-up", 3), ("other", "made-up", 2), ("known", "unseen", 4)):
        known_table(model, data, blocks=blocks).save(folder / "tables" / f"{model}-{data}.safetensors")
    train, held = folder / "train.toml", folder / "heldout.toml"
    train.write_text(_entry("known", "made-up") + _entry("other", "made-up"), encoding="utf-8")
    held.write_text(_entry("known", "unseen"), encoding="utf-8")
    return train, held


def _entry(model: str, data: str) -> str:
    settings = ", ".join(f'"{name}"' for name in SETTINGS)
    return f'[[task]]\nmodel = "{model}"\ndata = "{data}"\nsettings = [{settings}]\n'
