"""Where released files lie: any place that fsspec reaches, each file once, by its hash.

    objects/<first two digits>/<sha256>        the file
    releases/<name>/<time>-<sha256[:12]>.json  what it is; written last, so what is listed can be fetched

A folder by default; "s3://bucket/path" and its like with the library that fsspec asks for, configured as
fsspec is (FSSPEC_S3_KEY, FSSPEC_S3_ENDPOINT_URL, …).
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from device_bench.errors import BadInputError, RunError, unknown_name
from device_bench.storage import write_whole
from pipeline.data.cache import cache_folder
from pipeline.fleet.release import Release

VARIABLE = "EDGELOOP_ARTIFACTS"
_STAMP = "%Y%m%dT%H%M%S%fZ"


def default_url() -> str:
    """`$EDGELOOP_ARTIFACTS`, or a folder beside the experience store."""
    return os.environ.get(VARIABLE) or str(cache_folder() / "artifacts")


class Shelf:
    """Released files at a URL.

    Args:
        url: a folder, or any URL that fsspec knows.
        cache: folder for files that were fetched; beside the experience store where none is given.

    Raises:
        BadInputError: fsspec does not know the URL, or lacks the library for it.
    """

    def __init__(self, url: str | None = None, cache: Path | None = None) -> None:
        import fsspec

        self.url = default_url() if url is None else url
        self._cache = cache_folder() / "fetched" if cache is None else cache
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise BadInputError(
                f"cannot use {self.url} for artifacts: {error}; give a folder, or a URL that fsspec knows "
                "with its library installed"
            ) from error

    def put(self, release: Release, path: Path) -> Release:
        """Release a file; one of the same name, hash and time is kept once.

        Raises:
            BadInputError: the file is not what `release` says.
            RunError: the place cannot be written.
        """
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != release.sha256:
            raise BadInputError(
                f"{path} has SHA-256 {found}, the release says {release.sha256}; release it anew"
            )
        with self._explained("write"):
            place = self._object(release.sha256)
            if not self._files.exists(place):
                self._write(place, content)
            self._write(self._record(release), release.model_dump_json(indent=2).encode() + b"\n")
        return release

    def history(self) -> tuple[Release, ...]:
        """Every release, by name and then by time.

        Raises:
            BadInputError: one of them cannot be read.
            RunError: the place cannot be reached.
        """
        with self._explained("read"):
            self._files.invalidate_cache()
            found = self._files.glob(f"{self._root}/releases/*/*.json")
            contents = {path: self._files.cat_file(path) for path in found}
        releases = []
        for path, content in contents.items():
            try:
                releases.append(Release.model_validate_json(content))
            except ValidationError as error:
                raise BadInputError(
                    f"{path} is no release ({error.errors()[0]['msg']}); mend it, or take it away"
                ) from error
        return tuple(sorted(releases, key=lambda release: (release.name, release.created_at)))

    def releases(self) -> tuple[Release, ...]:
        """The newest of each name."""
        return tuple({release.name: release for release in self.history()}.values())

    def release(self, name: str) -> Release:
        """The newest of that name.

        Raises:
            BadInputError: there is none; names the nearest.
        """
        known = {release.name: release for release in self.releases()}
        if name not in known:
            raise unknown_name("release", name, known)
        return known[name]

    def withdraw(self, name: str) -> int:
        """Forget every release of that name; files stay, since others may share them. How many there were.

        Raises:
            BadInputError: there is none; names the nearest.
        """
        self.release(name)
        mine = [release for release in self.history() if release.name == name]
        with self._explained("write"):
            for release in mine:
                self._files.rm_file(self._record(release))
        return len(mine)

    def fetch(self, release: Release) -> Path:
        """The file here, checked by its hash; fetched once.

        Raises:
            RunError: the place cannot be reached, or the file there is not what was released.
        """
        local = self._cache / release.sha256 / release.file_name
        if local.exists() and hashlib.sha256(local.read_bytes()).hexdigest() == release.sha256:
            return local
        with self._explained("read"):
            content = bytes(self._files.cat_file(self._object(release.sha256)))
        found = hashlib.sha256(content).hexdigest()
        if found != release.sha256:
            raise RunError(
                f"{self._object(release.sha256)} at {self.url} has SHA-256 {found}: it was changed since; "
                f"release {release.name} anew"
            )
        write_whole(local, content)
        return local

    def _object(self, sha256: str) -> str:
        return f"{self._root}/objects/{sha256[:2]}/{sha256}"

    def _record(self, release: Release) -> str:
        stamp = release.created_at.strftime(_STAMP)
        return f"{self._root}/releases/{release.name}/{stamp}-{release.sha256[:12]}.json"

    def _write(self, place: str, content: bytes) -> None:
        """Whole or not at all: the name comes last."""
        self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
        partial = f"{place}.{secrets.token_hex(8)}.part"
        self._files.pipe_file(partial, content)
        self._files.mv(partial, place)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"cannot {what} artifacts at {self.url}: {error}; see {VARIABLE}") from error
