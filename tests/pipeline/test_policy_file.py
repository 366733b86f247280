from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from device_bench.errors import BadInputError
from pipeline.policy.policy_file import (
    METADATA_KEY,
    PolicyFile,
    load_policy_file,
    save_policy,
    shipped_policy,
)


@pytest.fixture
def policy() -> PolicyFile:
    tensors = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2), np.float32), "c": np.float32(4)}
    return PolicyFile("rl2", {"hidden": 4, "features": ["kept", "depth"]}, tensors)


def with_header(path: Path, text: str) -> Path:
    path.write_bytes(save({"a": np.zeros(1, np.float32)}, {METADATA_KEY: text}))
    return path


def test_comes_back_as_it_was(policy: PolicyFile, tmp_path: Path) -> None:
    save_policy(tmp_path / "p.safetensors", policy)
    found = load_policy_file(tmp_path / "p.safetensors", "rl2")
    assert (found.learner, found.settings) == (policy.learner, policy.settings)
    assert set(found.tensors) == set(policy.tensors)
    assert all(np.array_equal(found.tensors[name], policy.tensors[name]) for name in policy.tensors)
    assert {name: np.shape(t) for name, t in found.tensors.items()} == {"a": (2, 2), "b": (3,), "c": ()}


def test_equal_policies_make_equal_bytes(policy: PolicyFile, tmp_path: Path) -> None:
    turned = PolicyFile(
        "rl2", dict(reversed(policy.settings.items())), dict(reversed(policy.tensors.items()))
    )
    save_policy(tmp_path / "one", policy)
    save_policy(tmp_path / "other", turned)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("cut", [0, 5, 60, -4])
def test_a_damaged_file_is_refused(policy: PolicyFile, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "p.safetensors"
    save_policy(path, policy)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadInputError, match="damaged"):
        load_policy_file(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot read the policy"):
        load_policy_file(tmp_path / "nothing")


def test_weights_of_a_model_are_no_policy(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save({"conv": np.zeros(3, np.float32)}))
    with pytest.raises(BadInputError, match="no policy"):
        load_policy_file(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"schema_version": 99, "learner": "rl2", "settings": {}}', "schema version 99"),
        ('{"schema_version": 1, "learner": "rl2"}', "must have"),
        ('{"schema_version": 1, "learner": "rl2", "settings": {}, "more": 1}', "more"),
        ('{"schema_version": 1, "learner": 3, "settings": {}}', "must have"),
    ],
)
def test_a_foreign_header_is_refused(tmp_path: Path, header: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        load_policy_file(with_header(tmp_path / "p", header))


def test_another_learners_file_is_refused(policy: PolicyFile, tmp_path: Path) -> None:
    save_policy(tmp_path / "p", policy)
    with pytest.raises(BadInputError, match="'rl2', not of 'maml'"):
        load_policy_file(tmp_path / "p", "maml")


def test_settings_must_be_json(policy: PolicyFile, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="JSON"):
        save_policy(tmp_path / "p", PolicyFile("rl2", {"x": float("nan")}, policy.tensors))
    assert not (tmp_path / "p").exists()


def test_a_setting_that_is_missing_is_named(policy: PolicyFile) -> None:
    assert policy.setting("hidden") == 4
    with pytest.raises(BadInputError, match="'layers'"):
        policy.setting("layers")


def test_where_none_is_shipped_it_says_how_to_train_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.policy.policy_file.SHIPPED_FOLDER", tmp_path)
    with pytest.raises(BadInputError, match=r"edgeloop meta-train tasks\.toml --policy rl2"):
        shipped_policy("rl2")


def test_the_header_is_readable_without_us(policy: PolicyFile, tmp_path: Path) -> None:
    save_policy(tmp_path / "p", policy)
    content = (tmp_path / "p").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"][METADATA_KEY])["schema_version"] == 1
