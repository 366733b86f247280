"""Calibrations on disk: every measurement as one line of JSON, kept as soon as it was made.

The first line says what was measured where. A model is fitted anew from the measurements when it is loaded,
which takes seconds and needs no file that could run code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from device_bench.errors import BadInputError, RunError
from device_bench.protocol import Conditions
from device_bench.storage import write_whole
from pipeline.data.cache import cache_folder
from pipeline.latency_model.model import LatencyModel
from pipeline.latency_model.records import CalibrationHeader, MeasuredNet, Summary

SUMMARY_SUFFIX = ".summary.json"


def calibration_path(target: str, folder: Path | None = None) -> Path:
    """Where the calibration of a target is kept."""
    return (folder or cache_folder() / "calibration") / f"{target}.jsonl"


@dataclass
class CalibrationFile:
    """One calibration, open for more measurements.

    Args:
        path: a JSON Lines file.
        header: its first line.
        nets: the other lines.
    """

    path: Path
    header: CalibrationHeader
    nets: list[MeasuredNet]

    @classmethod
    def create(cls, path: Path, header: CalibrationHeader) -> CalibrationFile:
        """Begin a calibration; one that was at `path` is kept beside it, as `NAME.before.jsonl`.

        Raises:
            RunError: the file cannot be written.
        """
        if path.exists():
            path.replace(path.with_suffix(".before.jsonl"))
        write_whole(path, header.model_dump_json().encode() + b"\n")
        path.with_suffix(SUMMARY_SUFFIX).unlink(missing_ok=True)
        return cls(path, header, [])

    @classmethod
    def read(cls, path: Path) -> CalibrationFile:
        """Read a calibration. A last line that a killed process left unfinished is cut off.

        Raises:
            BadInputError: there is none, or it is damaged; says where.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInputError(
                f"there is no calibration at {path} ({error.strerror}); make one with "
                f"`edgeloop calibrate --target {path.stem}`"
            ) from error
        lines = content.split(b"\n")
        unfinished = lines.pop()
        if unfinished:
            os.truncate(path, len(content) - len(unfinished))
        header: CalibrationHeader | None = None
        nets: list[MeasuredNet] = []
        try:
            header = CalibrationHeader.model_validate_json(lines[0] if lines else b"")
            for line in lines[1:]:
                nets.append(MeasuredNet.model_validate_json(line))
        except ValidationError as error:
            damaged = len(nets) + (1 if header is None else 2)
            raise BadInputError(
                f"{path}, line {damaged}, is damaged ({error.errors()[0]['msg']}); delete the file and "
                "calibrate again"
            ) from error
        return cls(path, header, nets)

    def add(self, net: MeasuredNet) -> None:
        """Keep a measurement: on disk when this returns.

        Raises:
            RunError: the file cannot be written.
        """
        try:
            with self.path.open("ab") as file:
                file.write(net.model_dump_json(exclude_defaults=True).encode() + b"\n")
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}; free some space") from error
        self.nets.append(net)

    def of_role(self, role: str) -> list[MeasuredNet]:
        """The nets that the model learns from ("train"), or those that judge it ("check")."""
        return [net for net in self.nets if net.role == role]

    def save_summary(self, summary: Summary) -> None:
        """Keep what the calibration found out about itself, beside it.

        Raises:
            RunError: the file cannot be written.
        """
        write_whole(self.path.with_suffix(SUMMARY_SUFFIX), summary.model_dump_json(indent=2).encode() + b"\n")

    def summary(self) -> Summary | None:
        """What `save_summary` kept; None before the calibration's end.

        Raises:
            BadInputError: it is damaged.
        """
        path = self.path.with_suffix(SUMMARY_SUFFIX)
        try:
            return Summary.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise BadInputError(f"{path} is damaged ({error.errors()[0]['msg']}); delete it") from error

    def model(self) -> LatencyModel:
        """The model of all nets that it may learn from.

        Raises:
            BadInputError: there are too few.
        """
        summary = self.summary()
        trained = self.of_role("train")
        return LatencyModel.fit(trained) if summary is None else LatencyModel.fit(trained, summary.spread)


def load_model(target: str, folder: Path | None = None) -> LatencyModel:
    """The latency model of a target that was calibrated.

    Raises:
        BadInputError: it was not calibrated, or its calibration is damaged.
    """
    return CalibrationFile.read(calibration_path(target, folder)).model()


def mismatch(header: CalibrationHeader, conditions: Conditions) -> str | None:
    """Why a calibration does not hold for measurements made under `conditions`, in words; None if it does."""
    pairs = (
        ("processor", header.device.cpu_model, conditions.device.cpu_model),
        ("machine", header.device.machine, conditions.device.machine),
        ("runtime", header.runtime_version, conditions.runtime_version),
        ("accelerator", header.accelerator, conditions.accelerator),
        ("threads", str(header.threads), str(conditions.threads)),
    )
    differing = [f"{name} {then!r}, now {now!r}" for name, then, now in pairs if then != now]
    if not differing:
        return None
    return (
        f"{header.target} was calibrated with {'; '.join(differing)}: predictions may be off; calibrate "
        f"again with `edgeloop calibrate --target {header.target}`"
    )
