from __future__ import annotations

import pytest
from pydantic import ValidationError

from device_bench.errors import BadInputError
from pipeline.tables.order import TableOrder, target_of


def test_a_setting_is_a_target_with_threads() -> None:
    found = target_of("local-litert@2")
    assert (found.name, found.threads) == ("local-litert", 2)


@pytest.mark.parametrize("setting", ["local-litert", "local-litert@0", "local-litert@two", "@", "a@-1"])
def test_other_settings_are_refused(setting: str) -> None:
    with pytest.raises(BadInputError, match="TARGET@THREADS"):
        target_of(setting)


def test_the_file_is_named_after_model_and_data() -> None:
    order = TableOrder(model="my.nets:small", data="a/b", settings=("local-litert@1",))
    assert order.file_name == "my-nets-small-a-b.safetensors"


def test_an_order_needs_settings_and_plans() -> None:
    with pytest.raises(ValidationError):
        TableOrder(model="mlp", data="digits", settings=())
    with pytest.raises(ValidationError):
        TableOrder(model="mlp", data="digits", settings=("local-litert@1",), plans=3)
