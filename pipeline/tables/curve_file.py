"""Curves that were run before, kept so that a repeat costs nothing and a killed benchmark goes on.

One JSON Lines file a task. Each line says which policy made it, by name and by a digest of all that decides
what it proposes: a changed policy is run anew, and what older ones found still counts for the best known
front.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

import pipeline
from device_bench.errors import BadInputError, RunError
from device_bench.protocol import Record
from device_bench.storage import locked
from pipeline.policy.policy_file import SHIPPED_FOLDER, SUFFIX
from pipeline.tables.curve import Curve, Point

# Whatever policies are made of; a change there can change what they propose.
ROOMS = ("environment", "learning", "policy", "tables")


class CurveRecord(Record):
    """One curve. `maker`: digest of the policy; `asked`: how many trials it was given."""

    policy: str
    maker: str
    task: str
    seed: int
    asked: int
    points: tuple[Point | None, ...]

    def curve(self, trials: int) -> Curve:
        """Its first `trials` trials."""
        return Curve(self.policy, self.task, self.seed, self.points[:trials])


@dataclass(frozen=True)
class CurveFile:
    """The curves of one task; `path` is made with the first."""

    path: Path

    def read(self) -> tuple[CurveRecord, ...]:
        """Every curve that was written whole.

        Raises:
            BadInputError: a line other than a torn last one is no curve; names the line.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise BadInputError(f"cannot read {self.path}: {error.strerror}") from error
        records = []
        for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
            try:
                records.append(CurveRecord.model_validate_json(line))
            except ValidationError as error:
                raise BadInputError(
                    f"{self.path}, line {number} is no curve ({error.errors()[0]['msg']}); delete the file, "
                    "and its curves are run again"
                ) from error
        return tuple(records)

    def add(self, record: CurveRecord) -> None:
        """Add a curve; a torn line that a killed process left at the end goes first.

        Raises:
            RunError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")), self.path.open("ab+") as file:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
                file.write(record.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}; free some space") from error

    def find(
        self, records: Iterable[CurveRecord], policy: str, maker: str, seed: int, trials: int
    ) -> Curve | None:
        """The curve that this policy made before with at least as many trials; None where there is none.

        A file is known by its content, wherever it lies.
        """
        for record in records:
            same = record.maker == maker and (record.policy == policy or policy.endswith(SUFFIX))
            if same and record.seed == seed and record.asked >= trials:
                return replace(record.curve(trials), policy=policy)
        return None


def maker_of(policy: str) -> str:
    """Sixteen hex digits of all that decides what a policy proposes: its code, and its file if it is one.

    Raises:
        BadInputError: the file cannot be read.
    """
    digest = hashlib.sha256(_code().encode())
    shipped = SHIPPED_FOLDER / f"{policy}{SUFFIX}"
    path = Path(policy) if policy.endswith(SUFFIX) else shipped if shipped.exists() else None
    if path is not None:
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise BadInputError(f"cannot read the policy {path}: {error.strerror}") from error
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def _code() -> str:
    digest = hashlib.sha256()
    for room in ROOMS:
        folder = Path(pipeline.__file__).parent / room
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()
