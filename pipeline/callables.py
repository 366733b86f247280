"""Finding what a user means by "module:callable"."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_bench.errors import BadInputError


def load_callable(spec: str, error: type[BadInputError]) -> Callable[..., Any]:
    """The callable that `spec` names; modules in the current directory are found too.

    Args:
        spec: "package.module:callable".
        error: what is raised if there is no such thing.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise error(f'{spec!r} is no "module:callable"; write for example mypkg.nets:build')
    # A console script has its own folder on the path, not the user's.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as cause:
        raise error(
            f"module {module_name!r} of {spec!r} cannot be imported: {type(cause).__name__}: {cause}; "
            f"it is looked up in {here} and among the installed packages"
        ) from cause
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise error(f"{module_name!r} has no callable {attribute!r}; it has: {', '.join(names) or 'none'}")
    return found  # type: ignore[no-any-return]
