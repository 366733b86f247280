"""Devices by name: what is written down, what is never shown, and which targets they make."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from device_bench.errors import BadInputError
from device_bench.protocol import DeviceInfo, RuntimeName
from device_bench.wire import RuntimeInfo
from pipeline.target import (
    LOCAL_TARGETS,
    device_behind,
    device_of,
    find_target,
    find_targets,
    known_targets,
    target_beside,
)
from pipeline.target_bench import agent_bench, bench_for
from pipeline.target_book import Credential, Device, TargetBook, default_book

BOARD = DeviceInfo(
    hostname="pi", machine="aarch64", system="Linux", cpu_model="A72", cpu_count=4, memory_bytes=1
)
CREDENTIAL = Credential(certificate="the certificate", token="the-secret-token")


def board(name: str = "pi4", url: str = "https://pi4.lan:8443", **versions: str | None) -> Device:
    """A device with these runtimes; ONNX Runtime and LiteRT where none are given."""
    found = versions or {"onnxruntime": "1.31", "litert": "2.3"}
    infos = tuple(RuntimeInfo(runtime=RuntimeName(key), version=version) for key, version in found.items())
    return Device(name=name, url=url, device=BOARD, runtimes=infos)


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TargetBook:
    """The user's own book, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return default_book()


def test_an_empty_book_has_this_machine_only(book: TargetBook, tmp_path: Path) -> None:
    assert book.devices() == {}
    assert list(known_targets()) == [*LOCAL_TARGETS, "local-torch"]
    assert list(tmp_path.iterdir()) == [], "looking writes nothing"


def test_what_was_added_is_there_for_the_next_process(book: TargetBook) -> None:
    book.add(board(), CREDENTIAL)
    again = default_book()
    assert again.device("pi4") == board()
    assert again.credential("https://pi4.lan:8443") == CREDENTIAL
    book.add(board(litert="2.4"), CREDENTIAL)
    assert again.device("pi4").installed == (RuntimeName.LITERT,)


def test_credentials_are_for_their_owner_and_nowhere_else(book: TargetBook, tmp_path: Path) -> None:
    book.add(board(), CREDENTIAL)
    folder = tmp_path / "edgeloop"
    secrets = folder / "credentials.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    others = [path for path in folder.iterdir() if path != secrets]
    assert not any(CREDENTIAL.token in path.read_text() for path in others)
    target = find_target("pi4-litert")
    shown = [repr(CREDENTIAL), repr(target), target.model_dump_json(), repr(bench_for(target)), repr(book)]
    assert not any(CREDENTIAL.token in text for text in shown)


def test_what_was_removed_leaves_no_secret(book: TargetBook, tmp_path: Path) -> None:
    book.add(board(), CREDENTIAL)
    book.add(board("jetson", "https://jetson:8443"), Credential(certificate="c", token="another-token"))
    book.remove("pi4")
    assert list(book.devices()) == ["jetson"]
    left = "".join(path.read_text() for path in (tmp_path / "edgeloop").iterdir())
    assert CREDENTIAL.token not in left
    assert "another-token" in left
    with pytest.raises(BadInputError, match="edgeloop targets add"):
        agent_bench("https://pi4.lan:8443")


def test_a_device_that_is_checked_is_written_anew_but_not_if_it_was_removed(book: TargetBook) -> None:
    book.add(board(), CREDENTIAL)
    book.update(board(litert="2.4"))
    assert book.device("pi4").installed == (RuntimeName.LITERT,)
    assert book.credential("https://pi4.lan:8443") == CREDENTIAL
    book.remove("pi4")
    book.update(board())
    assert book.devices() == {}


@pytest.mark.parametrize(
    "name",
    ["", "Pi4", "pi 4", "../pi", "-pi", "local", "pi4-litert", "x-onnxruntime", "é", "a" * 64, "pi4\n"],
)
def test_names_that_no_device_may_have(book: TargetBook, name: str) -> None:
    with pytest.raises(BadInputError, match="name"):
        book.add(board().model_copy(update={"name": name}), CREDENTIAL)
    assert book.devices() == {}


def test_one_address_has_one_name(book: TargetBook) -> None:
    book.add(board(), CREDENTIAL)
    with pytest.raises(BadInputError, match="is known as pi4 already"):
        book.add(board("pi5"), CREDENTIAL)


def test_an_unknown_device_is_told_the_nearest(book: TargetBook) -> None:
    book.add(board(), CREDENTIAL)
    with pytest.raises(BadInputError, match="did you mean pi4"):
        book.remove("pi3")


@pytest.mark.parametrize("file", ["targets.json", "credentials.json"])
def test_a_damaged_file_is_named_and_not_quoted(book: TargetBook, tmp_path: Path, file: str) -> None:
    book.add(board(), CREDENTIAL)
    path = tmp_path / "edgeloop" / file
    path.write_text(path.read_text()[:-20] + "oops")
    with pytest.raises(BadInputError) as caught:
        agent_bench("https://pi4.lan:8443")
    assert str(path) in str(caught.value)
    assert CREDENTIAL.token not in str(caught.value)
    assert caught.value.__cause__ is None


def test_targets_of_a_device(book: TargetBook) -> None:
    book.add(board(onnxruntime="1.31", litert=None, torch="2.13"), CREDENTIAL)
    target = find_target("pi4-onnxruntime")
    assert (target.where, target.runtime, target.artifact_format) == (
        "https://pi4.lan:8443",
        RuntimeName.ONNXRUNTIME,
        "onnx",
    )
    assert device_of(target) == "pi4"
    assert device_behind(target) == book.device("pi4")
    assert not find_target("pi4-torch").compressible
    assert [found.name for found in find_targets("pi4")] == ["pi4-onnxruntime", "pi4-torch"]
    with pytest.raises(BadInputError, match="pi4 has no litert"):
        find_target("pi4-litert")
    with pytest.raises(BadInputError, match="pi4 has no litert"):
        find_targets("pi4-litert")


def test_a_device_without_a_runtime(book: TargetBook) -> None:
    book.add(board(litert=None), CREDENTIAL)
    with pytest.raises(BadInputError, match="pi4 has no runtime"):
        find_targets("pi4")


def test_this_machine_is_a_device_too(book: TargetBook) -> None:
    names = [target.name for target in find_targets("local") if target.compressible]
    assert names == list(LOCAL_TARGETS)
    assert find_targets("local-litert") == (LOCAL_TARGETS["local-litert"],)
    assert device_behind(LOCAL_TARGETS["local-litert"]) is None


@pytest.mark.parametrize("name", ["litert", "pi5", "pi4-tflite", "local-tflite"])
def test_unknown_targets(book: TargetBook, name: str) -> None:
    book.add(board(), CREDENTIAL)
    for find in (find_target, find_targets):
        with pytest.raises(BadInputError, match="unknown target"):
            find(name)


def test_the_other_runtime_of_a_device_is_used_the_same_way(book: TargetBook) -> None:
    book.add(board(), CREDENTIAL)
    given = find_target("pi4-litert").model_copy(update={"threads": 3})
    found = target_beside(given, RuntimeName.ONNXRUNTIME)
    assert (found.name, found.threads, found.where) == ("pi4-onnxruntime", 3, given.where)
    assert target_beside(given, RuntimeName.LITERT) is given
