"""Released files: put once, listed newest by name, fetched whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from pydantic import ValidationError

from device_bench.errors import BadInputError, RunError
from device_bench.protocol import RuntimeName
from pipeline.fleet.release import Release, default_name
from pipeline.fleet.shelf import VARIABLE, Shelf, default_url

MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["folder", "memory"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    """One in a folder with a space in its name, and one in an object store's like."""
    place = str(tmp_path / "a shelf") if request.param == "folder" else f"memory://{uuid4().hex}/shelf"
    yield Shelf(place, tmp_path / "fetched")


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "model.int8.tflite"
    path.write_bytes(content)
    return path


def release_of(path: Path, name: str = "net-board", hours: int = 0, **more: object) -> Release:
    content = path.read_bytes()
    known = {
        "name": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "file_name": path.name,
        "run_id": "run",
        "plan_id": "plan",
        "target": "board-litert",
        "runtime": RuntimeName.LITERT,
        "metric": "accuracy",
        "score": 90.0,
        "p50_ms": 1.0,
        "created_at": MADE + timedelta(hours=hours),
    }
    return Release.model_validate(known | more)


def test_what_was_put_is_listed_and_fetched(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.releases() == ()
    path = file_of(tmp_path, b"first")
    first = shelf.put(release_of(path), path)
    path = file_of(tmp_path, b"second")
    second = shelf.put(release_of(path, hours=1), path)
    other = shelf.put(release_of(path, name="another", hours=2), path)
    assert shelf.history() == (other, first, second)
    assert shelf.releases() == (other, second)
    assert shelf.release("net-board") == second
    for release, content in ((first, b"first"), (second, b"second"), (other, b"second")):
        fetched = shelf.fetch(release)
        assert fetched.name == "model.int8.tflite"
        assert fetched.read_bytes() == content
    # Another process sees the same.
    assert Shelf(shelf.url, tmp_path / "elsewhere").history() == shelf.history()


def test_putting_twice_changes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"content")
    release = release_of(path)
    assert shelf.put(release, path) == shelf.put(release, path)
    assert shelf.history() == (release,)


def test_a_file_that_is_not_the_released_one(shelf: Shelf, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"content")
    release = release_of(path)
    path.write_bytes(b"changed")
    with pytest.raises(BadInputError, match=r"has SHA-256 .* the release says .*release it anew"):
        shelf.put(release, path)
    assert shelf.history() == ()


def test_a_file_that_was_changed_on_the_shelf(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path / "shelf"), tmp_path / "fetched")
    path = file_of(tmp_path, b"content")
    release = shelf.put(release_of(path), path)
    (place,) = (tmp_path / "shelf" / "objects").rglob(release.sha256)
    place.write_bytes(b"something else")
    with pytest.raises(RunError, match=r"it was changed since; release net-board anew"):
        shelf.fetch(release)
    assert not list((tmp_path / "fetched").rglob("*.tflite"))
    # What was fetched and then damaged here is fetched again.
    place.write_bytes(b"content")
    shelf.fetch(release).write_bytes(b"damaged")
    assert shelf.fetch(release).read_bytes() == b"content"


def test_withdrawn(shelf: Shelf, tmp_path: Path) -> None:
    path = file_of(tmp_path, b"content")
    shelf.put(release_of(path), path)
    shelf.put(release_of(path, hours=1), path)
    kept = shelf.put(release_of(path, name="other"), path)
    assert shelf.withdraw("net-board") == 2
    assert shelf.releases() == (kept,)
    assert shelf.fetch(kept).read_bytes() == b"content"
    with pytest.raises(BadInputError, match=r"net-board.*other"):
        shelf.withdraw("net-board")


def test_a_record_that_is_none(tmp_path: Path) -> None:
    place = tmp_path / "shelf" / "releases" / "net" / "1.json"
    place.parent.mkdir(parents=True)
    place.write_text('{"name": "net"}')
    with pytest.raises(BadInputError, match=r"1\.json is no release"):
        Shelf(str(tmp_path / "shelf")).releases()


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"nowhere://x.*give a folder, or a URL"):
        Shelf("nowhere://x")
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    path = file_of(tmp_path, b"content")
    with pytest.raises(RunError, match="cannot write artifacts at"):
        Shelf(str(blocked)).put(release_of(path), path)


def test_where_a_shelf_is_without_a_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Shelf().url == default_url() == str(tmp_path / "artifacts")
    monkeypatch.setenv(VARIABLE, "memory://shelf")
    assert Shelf().url == "memory://shelf"
    assert isinstance(Shelf()._files, fsspec.get_filesystem_class("memory"))


@pytest.mark.parametrize(
    ("model", "data", "target", "name"),
    [
        ("resnet20", "cifar10-jpeg", "local-litert", "resnet20-cifar10-jpeg-local-litert"),
        ("mine:Build Net", "/some/where/samples.npz", "pi4-litert", "mine-build-net-samples-pi4-litert"),
        ("/some/where/net.onnx", "digits", "local-onnxruntime", "net-digits-local-onnxruntime"),
    ],
)
def test_default_names(model: str, data: str, target: str, name: str) -> None:
    assert default_name(model, data, target) == name


def test_golden_release() -> None:
    text = (Path(__file__).parents[2] / "golden" / "release_v1.json").read_text()
    release = Release.model_validate_json(text)
    assert (release.runtime, release.device_class) == (RuntimeName.LITERT, "pi4")
    assert release.created_at == datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert json.loads(release.model_dump_json()) == json.loads(text)
    with pytest.raises(ValidationError, match="novelty"):
        Release.model_validate(json.loads(text) | {"novelty": 1})
