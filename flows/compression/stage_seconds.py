"""`seconds.json`: where the time of a run went, while it goes on."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Record

CLOCK_FILE = "seconds.json"


class StageSeconds(Record):
    """Seconds spent in each stage, over all processes that worked on the run."""

    seconds: dict[str, float] = Field(default_factory=dict)


def stage_seconds(run: Path) -> dict[str, float]:
    """Seconds by stage of the run in `run`; none where no stage has ended.

    Raises:
        BadInputError: the file is damaged.
    """
    path = run / CLOCK_FILE
    try:
        return dict(StageSeconds.model_validate_json(path.read_bytes()).seconds)
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise BadInputError(f"{path} cannot be read ({error}); remove it to count from zero") from error
