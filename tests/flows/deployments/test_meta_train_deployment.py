"""`meta-train/nightly` trains, judges, and promotes or keeps aside, as the command line does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from known_tables import write_lists
from prefect.client.schemas.objects import StateType

from flows.compression.start import prepare_prefect
from flows.deployments.meta_train import meta_train
from flows.training import meta_train_start


def test_a_better_policy_is_promoted_and_the_same_again_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, _ = write_lists(tmp_path / "lists")
    shipped = tmp_path / "shipped"
    request = partial(meta_train_start.MetaTrainRequest, shipped=shipped)
    monkeypatch.setattr(meta_train_start, "MetaTrainRequest", request)
    server = prepare_prefect()
    if server is not None:
        server.wait_ready()

    def nightly(out: str) -> Any:
        return meta_train(tasks=tasks, out=tmp_path / out, experience=False, updates=3, return_state=True)

    state = nightly("first")
    assert state.type == StateType.COMPLETED, state.message
    policy = tmp_path / "first" / "reptile.safetensors"
    assert state.message.startswith(f"policy: {policy}; reptile.safetensors replaced: ")
    assert (shipped / "reptile.safetensors").read_bytes() == policy.read_bytes()
    state = nightly("second")
    assert "reptile.safetensors kept: " in state.message
    assert (tmp_path / "second" / "reptile.verdict.json").exists()
