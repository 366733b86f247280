"""Uploaded files by content hash, within a limit of size. Their names are hashes, never a client's words.

store/<sha256>         a whole file
store/<random>.part    an upload under way; swept away at the next start if it was cut off
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from device_bench.agent.refusals import Refused

_HASH = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


class ArtifactStore:
    """Files by hash, the least recently used of which make room for new ones.

    Not safe to share between threads, save for what `Upload` says.

    Args:
        folder: theirs alone; made where it is missing.
        artifact_bytes: the largest file.
        cache_bytes: all files together, uploads under way included.
    """

    def __init__(self, folder: Path, artifact_bytes: int, cache_bytes: int) -> None:
        self._folder = folder
        self._artifact_bytes = artifact_bytes
        self._cache_bytes = cache_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._unverified: set[str] = set()
        self._pins: dict[str, int] = {}
        self._used = 0

    @property
    def used_bytes(self) -> int:
        """What the files and the uploads under way take."""
        return self._used

    def open(self) -> None:
        """Take stock of what an earlier agent left; each file's hash is checked before its first use."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = []
        for path in self._folder.iterdir():
            if _HASH.fullmatch(path.name) and path.is_file():
                status = path.stat()
                found.append((status.st_mtime_ns, path.name, status.st_size))
            elif path.suffix == ".part":
                path.unlink()
        for _, sha256, size in sorted(found):
            self._sizes[sha256] = size
            self._unverified.add(sha256)
            self._used += size
        self._make_room(0)

    def path(self, sha256: str) -> Path | None:
        """The whole file with this hash, which counts as a use; None if it is not here."""
        if sha256 not in self._sizes:
            return None
        path = self._folder / sha256
        if sha256 in self._unverified:
            if not _is_whole(path, sha256):
                self._drop(sha256)
                return None
            self._unverified.discard(sha256)
        if not path.is_file():
            self._drop(sha256)
            return None
        self._sizes.move_to_end(sha256)
        return path

    def size(self, sha256: str) -> int:
        """Bytes of a file that is here."""
        return self._sizes[sha256]

    def pin(self, sha256: str) -> None:
        """Keep a file until it is unpinned as often as it was pinned."""
        self._pins[sha256] = self._pins.get(sha256, 0) + 1

    def unpin(self, sha256: str) -> None:
        """Take one pin off."""
        self._pins[sha256] -= 1
        if not self._pins[sha256]:
            del self._pins[sha256]

    def begin(self, sha256: str, declared_bytes: int | None) -> Upload:
        """Start an upload, having made room for what the client declared.

        Raises:
            Refused: 413 too large, 507 no room.
        """
        declared = declared_bytes or 0
        self._check_size(declared)
        self._make_room(declared)
        try:
            return Upload(self, self._folder / f"{secrets.token_hex(16)}.part", sha256, declared)
        except OSError as error:
            raise _no_room(str(error.strerror or error)) from error

    def link(self, sha256: str, path: Path) -> None:
        """Make a file that is here and pinned appear at `path`. May run in any thread.

        Raises:
            OSError: it cannot be made there.
        """
        source = self._folder / sha256
        try:
            path.hardlink_to(source)
        except OSError:  # a file system without hard links, such as FAT on a memory card
            shutil.copyfile(source, path)

    def adopt(self, path: Path, sha256: str) -> None:
        """Take in a file that a job wrote beside the store, on the same file system.

        Raises:
            Refused: 413 too large, 507 no room.
        """
        size = path.stat().st_size
        self._check_size(size)
        if self.path(sha256) is None:
            self._make_room(size)
            path.replace(self._folder / sha256)
            self._sizes[sha256] = size
            self._used += size

    def _check_size(self, size: int) -> None:
        if size > self._artifact_bytes:
            raise Refused(
                413,
                "too_large",
                f"a file may have at most {self._artifact_bytes} bytes here, and this one has {size} or "
                "more; the board's owner can raise it with `device-bench serve --artifact-limit`",
            )

    def _make_room(self, more: int) -> None:
        """Evict until `more` bytes fit."""
        for sha256 in list(self._sizes):
            if self._used + more <= self._cache_bytes:
                return
            if sha256 not in self._pins:
                self._drop(sha256)
        if more and self._used + more > self._cache_bytes:
            raise _no_room(
                f"{self._used} of {self._cache_bytes} bytes are held by jobs that wait or run and by uploads"
            )

    def _drop(self, sha256: str) -> None:
        self._used -= self._sizes.pop(sha256)
        self._unverified.discard(sha256)
        (self._folder / sha256).unlink(missing_ok=True)

    def _grow(self, upload: Upload, total: int) -> None:
        """Account for an upload that has grown to `total` bytes."""
        self._check_size(total)
        more = total - upload.reserved
        if more > 0:
            self._make_room(more)
            self._used += more
            upload.reserved = total

    def _keep(self, upload: Upload, partial: Path) -> None:
        self._used -= upload.reserved
        upload.reserved = 0
        if upload.sha256 in self._sizes:  # somebody else was faster
            partial.unlink()
            return
        partial.replace(self._folder / upload.sha256)
        self._sizes[upload.sha256] = upload.written
        self._used += upload.written

    def _give_up(self, upload: Upload, partial: Path) -> None:
        self._used -= upload.reserved
        upload.reserved = 0
        partial.unlink(missing_ok=True)


class Upload:
    """One file on its way in. A context manager: leaving it without `finish` leaves nothing behind.

    Only `write` may run in another thread, and only while nothing else is asked of this upload.
    """

    def __init__(self, store: ArtifactStore, partial: Path, sha256: str, declared: int) -> None:
        self.sha256 = sha256
        self.reserved = declared
        self.written = 0
        self._store = store
        self._partial = partial
        self._hash = hashlib.sha256()
        self._done = False
        self._file = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        store._used += declared

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # the last bytes of a full disk; the file goes anyway
            self._file.close()
        if not self._done:
            self._store._give_up(self, self._partial)

    def reserve(self, more: int) -> None:
        """Make room for the next `more` bytes.

        Raises:
            Refused: 413 too large, 507 no room.
        """
        self._store._grow(self, self.written + more)

    def write(self, chunk: bytes) -> None:
        """Append bytes that were reserved.

        Raises:
            Refused: 507 the disk is full.
        """
        try:
            self._file.write(chunk)
        except OSError as error:
            raise _no_room(str(error.strerror or error)) from error
        self._hash.update(chunk)
        self.written += len(chunk)

    def finish(self) -> None:
        """Keep the file.

        Raises:
            Refused: 422 the content has another hash, 507 the disk is full.
        """
        try:
            self._file.close()
        except OSError as error:
            raise _no_room(str(error.strerror or error)) from error
        found = self._hash.hexdigest()
        if found != self.sha256:
            raise Refused(
                422,
                "wrong_hash",
                f"the {self.written} bytes that arrived have the SHA-256 {found}, not {self.sha256}; "
                "send the file again, under the hash of its content",
            )
        self._store._keep(self, self._partial)
        self._done = True


def chunks_of(path: Path) -> Iterator[bytes]:
    """A file's content in pieces."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return hash_of(path) == sha256
    except OSError:
        return False


def _no_room(why: str) -> Refused:
    return Refused(
        507,
        "no_room",
        f"there is no room for this file: {why}; try again when the jobs before are done, or let the board's "
        "owner raise `device-bench serve --cache-limit`",
    )
