"""A plan that a person wrote, or that a run left, read from a file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from pydantic import ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from pipeline.layer_choice import LayerChoice
from pipeline.plan import CompressionPlan, RecoveryChoice, UnitChoice


def read_plan(path: Path) -> CompressionPlan:
    """The plan in a .json or .toml file.

    Raises:
        BadInputError: the file is missing or is none, a key is unknown, or a value out of range; says which.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInputError(
            f"cannot read the plan {path}: {error.strerror}; give a .toml or .json file, such as "
            "a run's plan.json"
        ) from error
    try:
        given = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise BadInputError(f"{path} is not valid {path.suffix[1:].upper() or 'TOML'}: {error}") from error
    return plan_of(given, str(path))


def plan_of(given: object, source: str) -> CompressionPlan:
    """The plan of these keys.

    Args:
        source: where they come from, for the message.

    Raises:
        BadInputError: a key is unknown, or a value out of range; says which and what is allowed.
    """
    try:
        return CompressionPlan.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        allowed = _allowed(first["loc"]) if first["type"] == "extra_forbidden" else ""
        raise BadInputError(f"{source}: {place}: {first['msg']}; got {first['input']!r}{allowed}") from error


def _allowed(place: tuple[int | str, ...]) -> str:
    """The keys that are known where an unknown one was given."""
    records: dict[str, type[Record]] = {
        "layers": LayerChoice,
        "units": UnitChoice,
        "recovery": RecoveryChoice,
    }
    record = records.get(str(place[0]), CompressionPlan) if len(place) > 1 else CompressionPlan
    return f"; known keys: {', '.join(name for name in record.model_fields if name != 'schema_version')}"
