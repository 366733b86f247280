"""Tables made of the experience of runs: what users' own trials add to meta-training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from pipeline.experience import StoredTrial
from pipeline.plan import CompressionPlan
from pipeline.search import plan_of
from pipeline.space import PlanSpace
from pipeline.tables.codec import Options, PlanCodec
from pipeline.tables.task_table import SettingRecord, TableHeader, TaskTable
from pipeline.task_record import TaskRecord
from pipeline.zoo import MODELS

# A learner takes a dozen plans as support and judges itself on as many others.
LEAST_WHOLE_PLANS = 24


@dataclass(frozen=True)
class ExperienceTables:
    """Tables, and which models were left out for which reason."""

    tables: tuple[TaskTable, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class HeldBack:
    """What must not be trained on, by name; see `pipeline.tables.task_list.held_back`."""

    models: frozenset[str] = frozenset()
    data: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()


@dataclass
class _Rows:
    options: list[Options]
    accuracy: list[float]
    latency_ms: list[dict[str, float]]


def tables_of(
    entries: Iterable[StoredTrial], tasks: Mapping[str, TaskRecord], held: HeldBack = HeldBack()
) -> ExperienceTables:
    """One table for each model and its data, of all runs that compressed it.

    Latencies of other runs are put in proportion to plain INT8's, as it was measured in each.

    Args:
        entries: trials of the store.
        tasks: what is known of their tasks; trials of others are left out.
        held: what stays out.
    """
    trials: dict[str, list[StoredTrial]] = defaultdict(list)
    for entry in entries:
        trials[entry.task_fingerprint].append(entry)
    groups: dict[str, list[TaskRecord]] = defaultdict(list)
    for _, record in sorted(tasks.items()):
        spec = record.task.model.model_dump_json()
        groups[f"{spec}|{record.task.data}|{record.width_step}|{record.graph.model_dump_json()}"].append(
            record
        )
    tables, left_out = [], {}
    for records in groups.values():
        first = records[0]
        name = f"{first.task.model.source}/{first.task.data}"
        header = _header(records, held)
        if first.task.model.source in held.models or first.task.data in held.data or not header.settings:
            left_out[name] = "it is held out"
            continue
        table = _table(header, records, trials)
        whole = int(((table.options != 0).sum(1) > 1).sum())
        if whole < LEAST_WHOLE_PLANS:
            left_out[name] = f"{whole} whole plans were tried, fewer than {LEAST_WHOLE_PLANS}"
        else:
            tables.append(table)
    return ExperienceTables(tuple(tables), left_out)


def _table(
    header: TableHeader, records: list[TaskRecord], trials: Mapping[str, list[StoredTrial]]
) -> TaskTable:
    codec = PlanCodec(PlanSpace.of(header.graph, header.width_step))
    rows = _Rows([], [], [])
    for record in records:
        settings = {target.name: f"{target.name}@{target.threads}" for target in record.task.targets}
        scale = {
            name: header.settings[setting].base_latency_ms / record.base_latency_ms[name]
            for name, setting in settings.items()
            if name in record.base_latency_ms and setting in header.settings
        }

        def add(
            plan: CompressionPlan,
            accuracy: float | None,
            latency: Mapping[str, float],
            settings: Mapping[str, str] = settings,
            scale: Mapping[str, float] = scale,
        ) -> None:
            if accuracy is None or not isfinite(accuracy) or not codec.space.contains(plan):
                return
            rows.options.append(codec.encode(plan))
            rows.accuracy.append(accuracy)
            rows.latency_ms.append({settings[n]: ms * scale[n] for n, ms in latency.items() if n in scale})

        for probe in record.probes:
            add(plan_of(codec.space, probe.change), probe.effect.accuracy, probe.effect.latency_ms)
        for entry in trials.get(record.fingerprint, ()):
            if entry.trial.failure is None:
                add(entry.trial.plan, entry.trial.accuracy, entry.trial.latency_ms)
    return TaskTable(
        header,
        np.array(rows.options, np.int16).reshape(len(rows.options), len(codec.positions)),
        np.array(rows.accuracy, np.float32),
        {
            setting: np.array([found.get(setting, nan) for found in rows.latency_ms], np.float32)
            for setting in header.settings
        },
    )


def _header(records: list[TaskRecord], held: HeldBack) -> TableHeader:
    first = records[0]
    settings: dict[str, SettingRecord] = {}
    for record in records:
        for target in record.task.targets:
            setting = f"{target.name}@{target.threads}"
            if target.name in record.base_latency_ms and setting not in held.settings:
                settings.setdefault(
                    setting,
                    SettingRecord(
                        target=target,
                        base_latency_ms=record.base_latency_ms[target.name],
                        shares=dict(record.shares.get(target.name, {})),
                    ),
                )
    source = first.task.model.source
    return TableHeader(
        model=first.task.model,
        family=MODELS[source].family if source in MODELS else source,
        data=first.task.data,
        metric=first.metric,
        float_accuracy=first.float_accuracy,
        chance=first.chance,
        samples=0,
        graph=first.graph,
        width_step=first.width_step,
        settings=settings,
        device="runs of this store",
    )
