"""Operators cut out of a file compute, one after the other, what the whole file computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from device_bench.runtimes import tflite_cut
from device_bench.runtimes.base import RuntimeFailure
from device_bench.runtimes.tflite_cut import TfliteFile, nearly_nothing


def _run(content: bytes, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name, of a file whose inputs are found by name."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], given[detail["name"]])
    interpreter.invoke()
    return {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}


@pytest.mark.parametrize("name", ["float.tflite", "int8.tflite"])
def test_pieces_in_a_row_are_the_whole(tflite_folder: Path, name: str) -> None:
    content = (tflite_folder / name).read_bytes()
    file = TfliteFile(content)
    operators = file.operators()
    (detail,) = Interpreter(model_content=content).get_input_details()
    inputs = np.random.default_rng(0).normal(0, 40, detail["shape"]).astype(detail["dtype"])
    values = {detail["name"]: inputs}
    for index, operator in enumerate(operators):
        made = _run(file.cut(index, index + 1), values)
        assert set(made) == set(operator.outputs)
        values |= made
    whole = _run(content, {detail["name"]: inputs})
    assert whole
    for output, expected in whole.items():
        # XNNPACK may fuse in the whole what is rounded between the pieces.
        error = np.abs(values[output].astype(float) - expected.astype(float)).max()
        assert error <= (1 if "int8" in name else 1e-3 * np.abs(expected).max())


def test_a_cut_of_everything_has_the_file_s_ends(tflite_folder: Path) -> None:
    content = (tflite_folder / "int8.tflite").read_bytes()
    file = TfliteFile(content)
    cut = Interpreter(model_content=file.cut(0, len(file.operators())))
    whole = Interpreter(model_content=content)
    for ends in ("get_input_details", "get_output_details"):
        ours, theirs = (getattr(each, ends)() for each in (cut, whole))
        assert [(d["name"], d["dtype"], d["quantization"]) for d in ours] == [
            (d["name"], d["dtype"], d["quantization"]) for d in theirs
        ]


def test_cutting_leaves_the_file_as_it_was(tflite_folder: Path) -> None:
    file = TfliteFile((tflite_folder / "float.tflite").read_bytes())
    first = [file.cut(i, i + 1) for i in range(len(file.operators()))]
    assert [file.cut(i, i + 1) for i in range(len(file.operators()))] == first


def test_nearly_nothing_is_the_larger_of_its_input_and_zero() -> None:
    for given, expected in ((-2.0, 0.0), (3.0, 3.0)):
        made = _run(nearly_nothing(), {"given": np.array([given], np.float32)})
        assert made["made"].tolist() == [expected]


def test_a_board_without_the_schema_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(tflite_cut, "import_module", absent)
    with pytest.raises(RuntimeFailure, match=r"edgeloop\[litert\]") as caught:
        nearly_nothing()
    assert caught.value.kind == "unsupported"
