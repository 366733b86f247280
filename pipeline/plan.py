"""What to do to a model: a typed, stored and validated compression plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from device_bench.protocol import Record
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.layer_choice import (
    EVERY,
    CalibrationMethod,
    Correction,
    Importance,
    LayerChoice,
    Matching,
    RecoveryMethod,
    Schedule,
)
from pipeline.legality import check_every, check_layers


class UnitChoice(Record):
    """What happens to one unit. `keep_ratio` is the share of its width that stays.

    `least_contribution`: channels without which the loss rises no more than this go instead; becomes a ratio
    when the plan meets the weights.
    """

    keep_ratio: float = Field(default=1.0, gt=0.0, le=1.0)
    least_contribution: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)


class RecoveryChoice(Record):
    """Fine-tuning after compression.

    `alpha` weighs the labels and `1 - alpha` the teacher in alpha * CE(y, s) + (1 - alpha) * T^2 *
    KL(softmax(t/T) || softmax(s/T))  (Hinton et al., 2015). `matching` adds `matching_weight` times the
    distance of what teacher and student compute on the way. `method` says which layers are trained when.
    With `patience`, recovery ends after so many epochs that brought nothing on the search split, and the
    best weights stay. By `sparsity_schedule` zeros come at once or step by step over the first three
    quarters. `quantization_epochs` of quantization-aware training follow; their ranges go into the
    INT8 file.
    """

    epochs: float = Field(default=0.0, ge=0.0)
    alpha: float = Field(default=0.3, ge=0.0, le=1.0)
    temperature: float = Field(default=4.0, gt=0.0)
    learning_rate: float = Field(default=0.05, gt=0.0)
    quantization_epochs: float = Field(default=0.0, ge=0.0)
    method: RecoveryMethod = "full"
    matching: Matching = "logits"
    matching_weight: float = Field(default=1.0, ge=0.0)
    patience: int = Field(default=0, ge=0)
    sparsity_schedule: Schedule = "constant"

    def canonical_json(self) -> str:
        """JSON without what choices of an earlier version did not have, where it asks for nothing."""
        return self.model_dump_json(exclude=_silent(self, _NEWER_OF_RECOVERY))


class CompressionPlan(Record):
    """Everything that turns the original model into the compressed one, and nothing else.

    `units`, `removed` and `layers` name what differs from the original; a unit not named keeps its width, a
    layer not named is left as it is. `layers["*"]` speaks of every layer that it is legal for and that has no
    entry of its own. `corrections` are done to the weights when everything is trained, before a file is made.
    """

    units: dict[str, UnitChoice] = Field(default_factory=dict)
    removed: tuple[str, ...] = ()
    layers: dict[str, LayerChoice] = Field(default_factory=dict)
    sparsity: float = Field(default=0.0, ge=0.0, lt=1.0)
    precision: Literal["float32", "int8"] = "int8"
    calibration: CalibrationMethod = "minmax"
    corrections: tuple[Correction, ...] = ()
    importance: Importance = "magnitude"
    recovery: RecoveryChoice = RecoveryChoice()
    seed: int = 0

    @field_validator("removed", "corrections")
    @classmethod
    def _sorted_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(names)))

    @property
    def plan_id(self) -> str:
        """Twelve hex digits that are the same for equal plans."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:12]

    def canonical_json(self) -> str:
        """JSON with keep ratios of 1 left out, units and layers in the order of their names.

        Fields that a plan of an earlier version did not have are left out where they ask for nothing, so that
        an equal plan has an equal name.
        """
        kept = {name: choice for name, choice in sorted(self.units.items()) if choice != UnitChoice()}
        layers = {name: choice for name, choice in sorted(self.layers.items()) if choice != LayerChoice()}
        told = self.model_copy(update={"units": kept, "layers": layers})
        silent = _silent(told, _NEWER_OF_PLAN) | {
            "recovery": _silent(told.recovery, _NEWER_OF_RECOVERY),
            "units": {name: _silent(choice, _NEWER_OF_UNIT) for name, choice in kept.items()},
        }
        return told.model_dump_json(exclude=silent)

    def keep_ratio(self, unit: str) -> float:
        """The share of the unit's width that stays, 1 where the plan is silent."""
        choice = self.units.get(unit)
        return 1.0 if choice is None else choice.keep_ratio

    def widths(self, graph: ModelGraph) -> dict[str, int]:
        """Width of every unit of `graph` under this plan, removed blocks included."""
        return {unit.name: unit.width_at(self.keep_ratio(unit.name)) for unit in graph.units}

    def where_training_begins(self) -> Self:
        """This plan without the zeros that come step by step while it is trained."""
        if self.recovery.sparsity_schedule == "constant":
            return self
        layers = {n: choice.model_copy(update={"sparsity": 0.0}) for n, choice in self.layers.items()}
        return self.model_copy(update={"layers": layers, "sparsity": 0.0})

    def checked(self, graph: ModelGraph) -> Self:
        """This plan, if it fits `graph`.

        Raises:
            PlanError: names the first unit or block that does not fit, and the reason.
        """
        self.checked_names(graph)
        self._check_links(graph)
        gone = {layer for block in graph.blocks if block.name in self.removed for layer in block.layers}
        check_layers({name: choice for name, choice in self.layers.items() if name != EVERY}, graph, gone)
        check_every(self.layers.get(EVERY, LayerChoice()), graph)
        self._check_training()
        return self

    def checked_names(self, graph: ModelGraph) -> Self:
        """This plan, if `graph` has its units and blocks and lets them be changed; widths are not compared.

        Raises:
            PlanError: names the first unit or block that does not fit, and the reason.
        """
        units = {unit.name: unit for unit in graph.units}
        for name, choice in self.units.items():
            if name not in units:
                raise PlanError(f"plan names unit {name!r}; the model's units are: {', '.join(units)}")
            unit = units[name]
            if choice != UnitChoice() and not unit.prunable:
                raise PlanError(f"unit {name!r} cannot be pruned: {unit.reason}; give it keep_ratio 1")
            self._check_contribution(name, choice)
        blocks = {block.name: block for block in graph.blocks}
        for name in self.removed:
            if name not in blocks:
                raise PlanError(
                    f"plan removes block {name!r}, which cannot be removed; removable: "
                    f"{', '.join(blocks) or 'none in this model'}"
                )
        return self

    def _check_contribution(self, name: str, choice: UnitChoice) -> None:
        if choice.least_contribution is None:
            return
        if choice.keep_ratio < 1.0:
            raise PlanError(
                f"unit {name!r} has keep_ratio {choice.keep_ratio:g} and least_contribution "
                f"{choice.least_contribution:g}; give one of the two"
            )
        if self.importance != "contribution":
            raise PlanError(
                f"unit {name!r} loses channels by their contribution, and the plan ranks channels by "
                f'{self.importance}; give the plan importance = "contribution"'
            )

    def _check_training(self) -> None:
        formed = [name for name, choice in self.layers.items() if choice.weights is not None]
        if formed and self.recovery.quantization_epochs > 0:
            raise PlanError(
                f"layer {formed[0]!r} has weights of a form of its own, and quantization-aware training is "
                "for the INT8 form: leave out one of weights and recovery.quantization_epochs"
            )
        if self.recovery.patience and self.recovery.sparsity_schedule != "constant":
            raise PlanError(
                "patience could keep the weights of an epoch before the last zeros have come: leave out one "
                "of recovery.patience and recovery.sparsity_schedule"
            )
        if self.corrections and self.recovery.quantization_epochs > 0:
            raise PlanError(
                f"{self.corrections[0]} changes the weights that quantization-aware training found ranges "
                "for: leave out one of corrections and recovery.quantization_epochs"
            )
        if formed and "equalisation" in self.corrections:
            raise PlanError(
                f"layer {formed[0]!r} has weights of a form of its own, and equalisation would scale them "
                "out of it: leave out one of the two"
            )

    def _check_links(self, graph: ModelGraph) -> None:
        widths = self.widths(graph)
        gone = {unit for block in graph.blocks if block.name in self.removed for unit in block.units}
        for unit in graph.units:
            if unit.source is None or unit.name in gone or unit.source in gone:
                continue
            source = graph.unit_by_name[unit.source]
            width, carried = widths[unit.name], widths[source.name]
            if not unit.width_fits(width, source, carried):
                raise PlanError(
                    f"plan gives unit {unit.name!r} width {width} and unit {source.name!r} width {carried}; "
                    f"a shortcut carries {source.name!r} into {unit.name!r}, so {unit.name!r} must have "
                    f"{carried} to {carried + unit.width - source.width} channels; change one of the two"
                )


# What plans of earlier versions did not have; where it asks for nothing, it is not told.
_NEWER_OF_PLAN = ("layers", "sparsity", "calibration", "corrections")
_NEWER_OF_UNIT = ("least_contribution",)
_NEWER_OF_RECOVERY = (
    "quantization_epochs",
    "method",
    "matching",
    "matching_weight",
    "patience",
    "sparsity_schedule",
)


def _silent(record: Record, names: Iterable[str]) -> dict[str, Any]:
    """Those of the fields that are at their defaults, as pydantic wants them told to be left out."""
    fields = type(record).model_fields
    defaults = {name: fields[name].get_default(call_default_factory=True) for name in names}
    return {name: True for name, default in defaults.items() if getattr(record, name) == default}
