"""Bearer tokens: made, listed and revoked by the command line, seen at once by a running agent.

A token is 256 random bits, so its SHA-256 digest, which is all that is stored, can neither be turned round
nor guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from device_bench.errors import BadInputError, RunError, unknown_name
from device_bench.protocol import Record
from device_bench.storage import locked, write_private
from device_bench.wire import Digest, Scope

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class StoredToken(Record):
    """What is kept of a token. Times are seconds since 1970; `expires_at` None is never."""

    name: str = Field(pattern=NAME_PATTERN)
    digest: Digest
    scope: Scope
    created_at: int
    expires_at: int | None = None


class TokenFile(Record):
    """The file's content."""

    tokens: tuple[StoredToken, ...] = ()


class _Seen(NamedTuple):
    """Tells one version of the file from another: it is only ever replaced, never written into."""

    inode: int
    modified_ns: int
    size: int


class Tokens:
    """The tokens in one file. Reads it again whenever it was replaced.

    Args:
        path: the file; a missing one holds no tokens.
        now: seconds since 1970.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._seen: _Seen | None = None
        self._tokens: tuple[StoredToken, ...] = ()

    def add(self, name: str, scope: Scope, valid_seconds: float | None = None) -> str:
        """Make a token; this is the only time that it can be seen.

        Raises:
            BadInputError: the name is taken or not a name, or the validity is not positive.
            RunError: the file cannot be read or written.
        """
        if valid_seconds is not None and not valid_seconds > 0:
            raise BadInputError(f"a token must be valid for more than 0 seconds; got {valid_seconds:g}")
        now = self._now()
        token = secrets.token_urlsafe(32)
        try:
            stored = StoredToken(
                name=name,
                digest=_digest(token),
                scope=scope,
                created_at=int(now),
                expires_at=None if valid_seconds is None else int(now + valid_seconds),
            )
        except ValidationError as error:
            raise BadInputError(
                f"a token's name must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter "
                f"or digit; got {name!r}"
            ) from error
        with locked(self._lock):
            tokens = self.list()
            if any(known.name == name for known in tokens):
                raise BadInputError(
                    f"there is a token {name!r} already; revoke it first with "
                    f"`device-bench token revoke {name}`, or take another name"
                )
            self._write((*tokens, stored))
        return token

    def revoke(self, name: str) -> None:
        """Forget a token; the next request that carries it is refused.

        Raises:
            BadInputError: there is no token of that name.
            RunError: the file cannot be read or written.
        """
        with locked(self._lock):
            tokens = self.list()
            left = tuple(token for token in tokens if token.name != name)
            if len(left) == len(tokens):
                raise unknown_name("token", name, [token.name for token in tokens])
            self._write(left)

    def replace_all(self, name: str, scope: Scope) -> str:
        """Revoke every token and make one."""
        with locked(self._lock):
            self._write(())
        return self.add(name, scope)

    def list(self) -> tuple[StoredToken, ...]:
        """All tokens, expired ones included.

        Raises:
            RunError: the file cannot be read.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, ()
            return ()
        seen = _Seen(found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            try:
                self._tokens = TokenFile.model_validate_json(self._path.read_bytes()).tokens
            except (OSError, ValidationError) as error:
                raise RunError(
                    f"cannot read the tokens in {self._path}; `device-bench init --force` makes new ones"
                ) from error
            self._seen = seen
        return self._tokens

    def find(self, token: str) -> StoredToken | None:
        """The stored token that this is, unless it expired. Every stored digest is compared, each in
        constant time, so that the answer's time tells nothing.

        Raises:
            RunError: the file cannot be read.
        """
        digest = _digest(token)
        found: StoredToken | None = None
        for stored in self.list():
            if hmac.compare_digest(stored.digest, digest):
                found = stored
        if found is None or (found.expires_at is not None and self._now() >= found.expires_at):
            return None
        return found

    @property
    def _lock(self) -> Path:
        return self._path.with_name(f"{self._path.name}.lock")

    def _write(self, tokens: tuple[StoredToken, ...]) -> None:
        content = TokenFile(tokens=tokens).model_dump_json(indent=2)
        write_private(self._path, content.encode() + b"\n")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
