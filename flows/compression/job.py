"""A compression job: what `edgeloop compress` is asked for, from a TOML file, from flags, or from both."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from device_bench.errors import BadInputError, unknown_name
from device_bench.protocol import Record
from pipeline.model_source import is_path
from pipeline.plan import CompressionPlan
from pipeline.plan_file import plan_of, read_plan
from pipeline.policy import DEFAULT_POLICY
from pipeline.task import Budget

# What the policy of a run is called that applies one plan and searches nothing.
GIVEN = "given"
BUDGET_FIELDS = tuple(name for name in Budget.model_fields if name != "schema_version")


class TeacherChoice(Record):
    """A further teacher for recoveries, beside the original model, whose own share is 1.

    `head`: it answers that one alone of the several tasks of the data, counted from 0.
    """

    model: str
    weights: str | None = None
    share: float = Field(default=1.0, gt=0.0)
    head: int | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: object) -> object:
        """MODEL=WEIGHTS, or an ONNX file."""
        if not isinstance(given, str):
            return given
        model, _, weights = given.partition("=")
        return {"model": model, "weights": weights or None}


class CompressJob(Record):
    """Everything one run needs to know; stored as `job.json` in the run's folder.

    The descriptions stand beside the fields of the form that Prefect makes of a job.
    """

    model: str = Field(default="cnn", description="Zoo name, module:callable, or a file (ONNX, Keras).")
    data: str = Field(default="digits", description="Data set name, .npz file, or module:callable.")
    weights: str | None = Field(default=None, description="Weights of the model (.safetensors).")
    data_root: str | None = Field(default=None, description="Folder of the data sets.")
    targets: tuple[str, ...] = Field(
        default=("local-onnxruntime", "local-litert"), min_length=1, description="Where it shall run."
    )
    budget: Budget = Budget()
    policy: str = Field(default=DEFAULT_POLICY, description="Its name, or the file of a trained one.")
    plan: CompressionPlan | None = Field(
        default=None, description="One plan to apply as it is, instead of a search."
    )
    trials: int = Field(default=12, ge=1, le=10_000, description="Plans to build and measure.")
    recovery_epochs: float = Field(
        default=8.0, ge=0.0, allow_inf_nan=False, description="Epochs of fine-tuning."
    )
    recoveries: int = Field(default=2, ge=0, le=20, description="Plans to recover for each target.")
    rehearsals: int = Field(
        default=6,
        ge=0,
        le=100,
        description="Plans to recover for a twelfth of that, or 100 steps, to see which to choose.",
    )
    teachers: tuple[TeacherChoice, ...] = Field(
        default=(), description="Further teachers for recovery: MODEL=WEIGHTS, or an ONNX file."
    )
    robustness: bool = Field(default=False, description="Also judge under FGSM, PGD and common corruptions.")
    exactness: bool = Field(
        default=False, description="Also hold each INT8 file against torch computing with the same numbers."
    )
    threads: int = Field(default=1, ge=1, description="Threads of the runtimes.")
    seed: int = Field(default=0, description="Fixes everything random.")
    out: str = Field(default="runs", description="Folder for runs.")
    runner: Literal["local", "dask"] = Field(
        default="local", description="Who builds and judges candidates: this process, or a Dask cluster."
    )
    scheduler: str | None = Field(default=None, description="Address of the cluster: tcp://HOST:PORT.")

    @model_validator(mode="after")
    def _fits_together(self) -> CompressJob:
        if (self.runner == "dask") != (self.scheduler is not None):
            raise ValueError("runner dask and scheduler tcp://HOST:PORT are given together, or neither")
        if self.runner == "dask" and self.policy == "bisection":
            raise ValueError("policy bisection trains each plan before it makes the next, with runner local")
        layers = self.plan.layers if self.plan is not None else {}
        own = sorted(name for name, choice in layers.items() if choice.precision not in (None, "int8"))
        if self.exactness and own:
            raise ValueError(
                "exactness is for files whose layers are all INT8, and the plan gives another precision to "
                f"{', '.join(own)}: leave one of the two out"
            )
        return self

    def from_anywhere(self) -> CompressJob:
        """The same job with absolute paths, so that it can be resumed from another folder."""
        paths = {name: getattr(self, name) for name in ("weights", "data_root", "out")}
        if is_path(self.model):
            paths["model"] = self.model
        if self.data.endswith(".npz"):
            paths["data"] = self.data
        absolute = {name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
        return self.model_copy(update={**absolute, "teachers": tuple(map(_from_anywhere, self.teachers))})


def _from_anywhere(teacher: TeacherChoice) -> TeacherChoice:
    paths = {"weights": teacher.weights, "model": teacher.model if is_path(teacher.model) else None}
    absolute = {name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
    return teacher.model_copy(update=absolute)


def stored_job(run: Path) -> CompressJob:
    """The job of an earlier run.

    Raises:
        BadInputError: `job.json` is damaged.
    """
    path = run / "job.json"
    try:
        return CompressJob.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise BadInputError(f"{path} cannot be read ({error}); start a new run without --resume") from error


def read_job(path: Path) -> dict[str, object]:
    """The keys of a TOML job file; `[budget]` may be a table, or its keys may stand beside the others.

    Raises:
        BadInputError: the file is missing or is not TOML; says where.
    """
    try:
        return dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInputError(
            f"job file {path} does not exist; give a path to a TOML file or use flags"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"job file {path} is not valid TOML: {error}") from error


def make_job(given: Mapping[str, object]) -> CompressJob:
    """The job of these keys; budget keys (max_drop, …) may stand at the top level.

    Raises:
        BadInputError: an unknown key (names the nearest), or a value out of range (says what is allowed).
    """
    keys = dict(given)
    nested = keys.pop("budget", {})
    if not isinstance(nested, Mapping):
        raise BadInputError(
            f"budget must be a table of {', '.join(BUDGET_FIELDS)}; got {nested!r}: write [budget] "
            "and the keys below it"
        )
    budget = dict(nested)
    for name in BUDGET_FIELDS:
        if name in keys:
            budget[name] = keys.pop(name)
    if isinstance(keys.get("target"), str | list | tuple):
        target = keys.pop("target")
        keys["targets"] = [target] if isinstance(target, str) else target
    if "teacher" in keys:
        keys["teachers"] = keys.pop("teacher")
    _put_plan(keys)
    for name in keys:
        if name not in CompressJob.model_fields:
            raise unknown_name("job key", name, [*CompressJob.model_fields, *BUDGET_FIELDS])
    for name in budget:
        if name not in BUDGET_FIELDS:
            raise unknown_name("budget key", name, BUDGET_FIELDS)
    try:
        return CompressJob.model_validate({**keys, "budget": budget})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if not place:
            # Of several keys together, and in words that say which.
            raise BadInputError(first["msg"].removeprefix("Value error, ")) from error
        raise BadInputError(f"{place} must satisfy: {first['msg']}; got {first['input']!r}") from error


def _put_plan(keys: dict[str, object]) -> None:
    """Read the plan that is named, if one is; there is nothing to search then."""
    plan = keys.get("plan")
    if plan is None:
        return
    searching = [name for name in ("policy", "trials", "rehearsals") if name in keys]
    if searching:
        raise BadInputError(
            f"a plan is applied as it is, so {', '.join(searching)} would have no meaning: give either the "
            "plan or those"
        )
    keys["plan"] = read_plan(Path(plan)) if isinstance(plan, str) else plan_of(plan, "plan")
    keys |= {"policy": GIVEN, "trials": 1, "rehearsals": 0}
