"""The store of uploaded files: checked, limited, and never the wrong file under a hash."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from device_bench.agent.artifacts import ArtifactStore, hash_of
from device_bench.agent.refusals import Refused


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(store: ArtifactStore, content: bytes, declared: bool = True, pieces: int = 2) -> str:
    """Upload in pieces; the hash."""
    sha256 = name_of(content)
    step = max(1, len(content) // pieces)
    with store.begin(sha256, len(content) if declared else None) as upload:
        for start in range(0, len(content), step):
            piece = content[start : start + step]
            upload.reserve(len(piece))
            upload.write(piece)
        upload.finish()
    return sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def store(folder: Path) -> ArtifactStore:
    made = ArtifactStore(folder, artifact_bytes=100, cache_bytes=250)
    made.open()
    return made


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("content", [b"", b"x", b"y" * 100])
def test_what_went_in_comes_out(store: ArtifactStore, content: bytes, declared: bool) -> None:
    sha256 = put(store, content, declared)
    path = store.path(sha256)
    assert path is not None
    assert path.read_bytes() == content
    assert store.size(sha256) == store.used_bytes == len(content)


def test_unknown(store: ArtifactStore) -> None:
    assert store.path("0" * 64) is None


def test_wrong_hash_leaves_nothing(store: ArtifactStore, folder: Path) -> None:
    with pytest.raises(Refused, match="send the file again") as caught, store.begin("0" * 64, 3) as upload:
        upload.reserve(3)
        upload.write(b"abc")
        upload.finish()
    assert (caught.value.status, caught.value.code) == (422, "wrong_hash")
    assert list(folder.iterdir()) == []
    assert store.used_bytes == 0


def test_half_an_upload_leaves_nothing(store: ArtifactStore, folder: Path) -> None:
    with pytest.raises(ConnectionError), store.begin("0" * 64, 90) as upload:
        upload.reserve(10)
        upload.write(b"x" * 10)
        assert store.used_bytes == 90
        raise ConnectionError
    assert list(folder.iterdir()) == []
    assert store.used_bytes == 0


def test_too_large_as_declared(store: ArtifactStore, folder: Path) -> None:
    with pytest.raises(Refused, match="at most 100 bytes") as caught:
        store.begin("0" * 64, 101)
    assert caught.value.status == 413
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("declared", [None, 5])
def test_too_large_as_it_comes(store: ArtifactStore, folder: Path, declared: int | None) -> None:
    with pytest.raises(Refused) as caught, store.begin("0" * 64, declared) as upload:
        upload.reserve(60)
        upload.write(b"x" * 60)
        upload.reserve(41)
    assert caught.value.status == 413
    assert list(folder.iterdir()) == []


def test_the_least_recently_used_goes_first(store: ArtifactStore) -> None:
    first, second = put(store, b"1" * 100), put(store, b"2" * 100)
    assert store.path(first) is not None  # a use
    third = put(store, b"3" * 100)
    assert store.path(second) is None
    assert store.path(first) is not None
    assert store.path(third) is not None
    assert store.used_bytes == 200


def test_what_a_job_needs_stays(store: ArtifactStore) -> None:
    kept = put(store, b"1" * 100)
    store.pin(kept)
    store.pin(kept)
    for number in range(2, 6):
        put(store, str(number).encode() * 100)
    assert store.path(kept) is not None
    store.unpin(kept)
    put(store, b"6" * 100)
    put(store, b"7" * 100)
    assert store.path(kept) is not None
    store.unpin(kept)
    put(store, b"8" * 100)
    put(store, b"9" * 100)
    assert store.path(kept) is None


def test_no_room_among_what_jobs_need(store: ArtifactStore) -> None:
    for content in (b"1" * 100, b"2" * 100):
        store.pin(put(store, content))
    with pytest.raises(Refused, match="200 of 250 bytes") as caught:
        store.begin("0" * 64, 51)
    assert caught.value.status == 507
    with pytest.raises(Refused), store.begin("0" * 64, None) as upload:
        upload.reserve(51)
    assert store.used_bytes == 200
    put(store, b"3" * 50)


def test_uploads_under_way_count(store: ArtifactStore) -> None:
    with store.begin("0" * 64, 100), store.begin("1" * 64, 100), pytest.raises(Refused) as caught:
        store.begin("2" * 64, 100)
    assert caught.value.status == 507
    assert store.used_bytes == 0


def test_two_upload_the_same(store: ArtifactStore, folder: Path) -> None:
    content = b"x" * 40
    with store.begin(name_of(content), 40) as slow:
        slow.reserve(40)
        slow.write(content)
        put(store, content)
        slow.finish()
    assert store.used_bytes == 40
    assert [path.name for path in folder.iterdir()] == [name_of(content)]


def test_a_restart_knows_the_files(store: ArtifactStore, folder: Path) -> None:
    whole, damaged = put(store, b"whole"), put(store, b"damaged")
    (folder / damaged).write_bytes(b"DAMAGED")
    (folder / "0123.part").write_bytes(b"half")
    (folder / "stranger").write_bytes(b"not ours")
    again = ArtifactStore(folder, 100, 250)
    again.open()
    assert again.used_bytes == len(b"whole") + len(b"damaged")
    assert again.path(whole) is not None
    assert again.path(damaged) is None
    assert again.used_bytes == len(b"whole")
    assert {path.name for path in folder.iterdir()} == {whole, "stranger"}


def test_a_restart_with_a_smaller_limit_forgets_the_oldest(store: ArtifactStore, folder: Path) -> None:
    old, new = put(store, b"1" * 100), put(store, b"2" * 100)
    os.utime(folder / old, ns=(1, 1))
    again = ArtifactStore(folder, 100, 150)
    again.open()
    assert again.path(old) is None
    assert again.path(new) is not None


def test_a_file_that_somebody_deleted(store: ArtifactStore, folder: Path) -> None:
    sha256 = put(store, b"x" * 10)
    (folder / sha256).unlink()
    assert store.path(sha256) is None
    assert store.used_bytes == 0
    put(store, b"x" * 10)
    assert store.path(sha256) is not None


def test_a_full_disk(store: ArtifactStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(Refused, match="No space left") as caught, store.begin("0" * 64, 3) as upload:
        upload._file.close()
        monkeypatch.setattr(upload, "_file", type("File", (), {"write": full, "close": full})())
        upload.write(b"abc")
    assert caught.value.status == 507
    assert list(folder.iterdir()) == []


def test_outputs_are_adopted(store: ArtifactStore, tmp_path: Path) -> None:
    made = tmp_path / "outputs"
    made.write_bytes(b"out")
    store.adopt(made, hash_of(made))
    path = store.path(name_of(b"out"))
    assert path is not None
    assert path.read_bytes() == b"out"
    made.write_bytes(b"x" * 101)
    with pytest.raises(Refused) as caught:
        store.adopt(made, hash_of(made))
    assert caught.value.status == 413


@pytest.mark.parametrize("links", [True, False])
def test_a_job_sees_its_file(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    store.link(put(store, b"model"), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"model"
