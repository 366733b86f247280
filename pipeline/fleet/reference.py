"""The models that released files are measured beside, one a runtime. They never change.

`benchmarks/fleet_reference.py` made them, and says why they are as large as they are.
"""

from __future__ import annotations

from pathlib import Path

from device_bench.errors import BadInputError
from device_bench.protocol import RuntimeName

_FOLDER = Path(__file__).parent / "references"

REFERENCES = {
    RuntimeName.ONNXRUNTIME: _FOLDER / "pace.onnx",
    RuntimeName.LITERT: _FOLDER / "pace.tflite",
}


def reference_for(runtime: RuntimeName) -> Path:
    """The INT8 model that files of a runtime are measured beside.

    Raises:
        BadInputError: there is none for that runtime.
    """
    if runtime not in REFERENCES:
        allowed = ", ".join(sorted(known.value for known in REFERENCES))
        raise BadInputError(
            f"no reference model runs on {runtime.value}; the fleet benchmark watches files for {allowed}"
        )
    return REFERENCES[runtime]
