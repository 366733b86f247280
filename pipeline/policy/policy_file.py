"""A trained policy on disk: one safetensors file, its tensors and a JSON header.

The header stands in the file's metadata under "edgeloop_policy": `schema_version`, `learner` (the name that
`POLICIES` calls the policy by) and `settings` (sizes, feature names, what it was trained on). Equal contents
make equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_bench.errors import BadInputError
from device_bench.storage import write_whole

METADATA_KEY = "edgeloop_policy"
SCHEMA_VERSION = 1
SUFFIX = ".safetensors"
# Policies that come with the package, by the name of their learner.
SHIPPED_FOLDER = Path(__file__).parent / "shipped"


@dataclass(frozen=True, eq=False)
class PolicyFile:
    """A trained policy.

    Args:
        learner: which policy the parameters are of.
        settings: JSON values only; what it takes to use the parameters, and how they came about.
        tensors: the parameters by name.
    """

    learner: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    def setting(self, name: str) -> Any:
        """One of the settings.

        Raises:
            BadInputError: there is none of that name.
        """
        if name not in self.settings:
            raise BadInputError(
                f"the policy file of {self.learner} has no setting {name!r}; it has: "
                f"{', '.join(sorted(self.settings)) or 'none'}; {_train_again(self.learner)}"
            )
        return self.settings[name]


def save_policy(path: Path, policy: PolicyFile) -> None:
    """Write a policy, whole or not at all.

    Raises:
        BadInputError: the settings are not JSON values.
        RunError: the file cannot be written.
    """
    from safetensors.numpy import save

    header = {"schema_version": SCHEMA_VERSION, "learner": policy.learner, "settings": dict(policy.settings)}
    try:
        text = json.dumps(header, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"settings of a policy must be JSON values: {error}") from error
    # `numpy.ascontiguousarray` would make vectors of single numbers.
    tensors = {name: np.array(policy.tensors[name], order="C") for name in sorted(policy.tensors)}
    write_whole(path, save(tensors, {METADATA_KEY: text}))


def load_policy_file(path: Path, learner: str | None = None) -> PolicyFile:
    """Read a policy.

    Args:
        learner: what the file must hold; None for any.

    Raises:
        BadInputError: there is no such file, it is damaged or no policy, it is of another schema version or
            of another learner.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"cannot read the policy {path}: {error.strerror}; give a file that `edgeloop meta-train` wrote"
        ) from error
    try:
        tensors = load(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise BadInputError(
            f"{path} is damaged or no safetensors file ({error}); take it from its source again, or train "
            "it anew with `edgeloop meta-train`"
        ) from error
    policy = _described(path, metadata, tensors)
    if learner is not None and policy.learner != learner:
        raise BadInputError(
            f"{path} holds a policy of {policy.learner!r}, not of {learner!r}; name it with "
            f"--policy {policy.learner}, or give a file of {learner}"
        )
    return policy


def shipped_policy(learner: str) -> PolicyFile:
    """The policy of a learner that comes with the package.

    Raises:
        BadInputError: none was trained yet, or it is damaged; says how to train one.
    """
    path = SHIPPED_FOLDER / f"{learner}{SUFFIX}"
    if not path.exists():
        raise BadInputError(
            f"no trained {learner} policy comes with this package; {_train_again(learner)}, and give the "
            "file it writes as --policy FILE.safetensors"
        )
    return load_policy_file(path, learner)


def _described(path: Path, metadata: Mapping[str, str], tensors: dict[str, np.ndarray]) -> PolicyFile:
    if METADATA_KEY not in metadata:
        raise BadInputError(
            f"{path} is a safetensors file, but no policy; give a file that `edgeloop meta-train` wrote"
        )
    try:
        header = json.loads(metadata[METADATA_KEY])
        version = header["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"the header of the policy {path} is damaged ({error!r}); train it anew with "
            "`edgeloop meta-train`"
        ) from error
    if version != SCHEMA_VERSION:
        raise BadInputError(
            f"the policy {path} has schema version {version}; this edgeloop reads {SCHEMA_VERSION}: train it "
            "anew with `edgeloop meta-train`, or use the edgeloop that wrote it"
        )
    learner, settings = header.get("learner"), header.get("settings")
    if set(header) != {"schema_version", "learner", "settings"} or not (
        isinstance(learner, str) and isinstance(settings, dict)
    ):
        raise BadInputError(
            f"the header of the policy {path} must have schema_version, learner and settings; got "
            f"{', '.join(sorted(header))}: train it anew with `edgeloop meta-train`"
        )
    return PolicyFile(learner, settings, tensors)


def _train_again(learner: str) -> str:
    return f"train one with `edgeloop meta-train tasks.toml --policy {learner}`"
