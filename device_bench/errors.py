"""The root of every error that edgeloop raises on purpose.

    EdgeloopError
    ├── BadInputError          what the caller gave cannot be used (exit code 2)
    │   ├── MissingExtraError  an optional dependency is not installed
    │   ├── RefusedError       an agent does not do what it was asked for
    │   └── UntrustedAgentError  an agent is not the one that was paired with
    └── RunError               the run itself failed (exit code 3)
        └── UnreachableError   an agent does not answer

A message says what was given, what is allowed and what to do next. `pipeline.errors` adds its own leaves.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgeloopError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what a command line ends with."""

    exit_code = 3


class BadInputError(EdgeloopError):
    """What the caller gave cannot be used."""

    exit_code = 2


class RunError(EdgeloopError):
    """The run failed though its input was fine."""


class MissingExtraError(BadInputError):
    """A back-end's library is not installed.

    Args:
        module: the module that could not be imported.
        extra: the extra of the edgeloop distribution that brings it.
    """

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f'{module} is not installed; install it with: pip install "edgeloop[{extra}]"')


class RefusedError(BadInputError):
    """An agent does not do what it was asked for: no right to it, too large, damaged on the way, …

    Args:
        status: the HTTP status of its answer.
        code: the refusal's code, for programs.
        message: the agent's own words.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class UntrustedAgentError(BadInputError):
    """Whoever answers is not the agent that was paired with; nothing was sent to it."""


class UnreachableError(RunError):
    """An agent does not answer, or did not stop being busy."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> BadInputError:
    """The error for a name that is not known, with the nearest known ones.

    Args:
        kind: what was looked up, for example "model".
        given: the name that was given.
        known: every name that would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return BadInputError(f"unknown {kind} {given!r}; {hint}known: {', '.join(names) or 'none'}")
