"""The fleet's history in a database that trials are in as well."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_visits import WATCHED, visit
from history_suite import OTHER, HistorySuite
from pydantic import ValidationError

from device_bench.errors import BadInputError
from pipeline.experience import ExperienceStore
from pipeline.fleet.history import Acceptance, FleetMeasurement
from pipeline.fleet.history_store import HistoryStore, key_of

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def history(place: Path) -> Iterator[HistoryStore]:
    with HistoryStore(place) as found:
        yield found


class TestHistoryStore(HistorySuite):
    pass


def test_rounds_devices_and_what_is_watched(history: HistoryStore) -> None:
    for day, watched in ((0, WATCHED), (0, OTHER), (1, OTHER)):
        history.add(visit(day, 1.0, watched=watched))
    assert [one.watched for one in history.of_round("day-0")] == [WATCHED, OTHER]
    assert history.of_round("day-7") == ()
    assert history.watched() == (WATCHED, OTHER)
    assert history.watched("board-08") == (OTHER,)
    last = history.last_of_device("board-08")
    assert last is not None and last.round_id == "day-1"
    assert history.last_of_device("board-99") is None


def test_it_outlives_its_process_and_stands_beside_trials(place: Path, history: HistoryStore) -> None:
    history.add(visit(0, 1.0))
    with ExperienceStore(place) as trials, HistoryStore(place) as again:
        assert trials.trials() == ()
        assert again.visits(WATCHED) == (visit(0, 1.0),)


def test_a_store_of_before_fleets_gets_the_tables(place: Path) -> None:
    with ExperienceStore(place):
        pass
    with sqlite3.connect(place) as connection:
        connection.execute("DROP TABLE fleet_visits")
        connection.execute("DROP TABLE fleet_acceptances")
        connection.execute("DROP TABLE alembic_version")
    with HistoryStore(place) as history:
        history.add(visit(0, 1.0))
        assert len(history.visits(WATCHED)) == 1


def test_a_damaged_visit(place: Path, history: HistoryStore) -> None:
    history.add(visit(0, 1.0))
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE fleet_visits SET payload = '{}'")
    with pytest.raises(BadInputError, match=r"store\.sqlite is damaged: it has a FleetMeasurement"):
        history.visits(WATCHED)


def test_a_database_of_something_else(tmp_path: Path) -> None:
    place = tmp_path / "other.sqlite"
    with sqlite3.connect(place) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    with pytest.raises(BadInputError, match="a database of something else"):
        HistoryStore(place)


def test_equal_ones_have_one_key() -> None:
    assert key_of(WATCHED) == key_of(WATCHED.model_copy())
    assert len({key_of(WATCHED), key_of(OTHER)}) == 2


@pytest.mark.parametrize(
    ("name", "kind"), [("fleet_measurement_v1.json", FleetMeasurement), ("acceptance_v1.json", Acceptance)]
)
def test_golden_records(name: str, kind: type[FleetMeasurement] | type[Acceptance]) -> None:
    text = (GOLDEN / name).read_text()
    record = kind.model_validate_json(text)
    assert record.watched.device == "board-07"
    assert json.loads(record.model_dump_json()) == json.loads(text)
    with pytest.raises(ValidationError, match="extra"):
        kind.model_validate({**json.loads(text), "unknown": 1})
