from __future__ import annotations

import subprocess
import sys

import pytest

from device_bench.errors import BadInputError
from exporters import EXPORTERS, exporter_for


@pytest.mark.parametrize("form", EXPORTERS)
def test_every_format_has_an_exporter(form: str) -> None:
    assert callable(exporter_for(form).export)


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(BadInputError, match="did you mean tflite"):
        exporter_for("tflitte")


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = "import exporters, sys; print([n for n in ('torch', 'onnx', 'litert_torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = "import exporters.to_onnx, exporters.to_tflite, exporters.traced_onnx, sys; "
    code += "print([n for n in ('onnx', 'onnxruntime', 'litert_torch', 'tensorflow') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
