"""Turn a torch module into files that runtimes read, and prove that they compute the same."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from device_bench.errors import unknown_name

if TYPE_CHECKING:
    from exporters.base import Exporter

EXPORTERS: dict[str, str] = {
    "onnx": "exporters.to_onnx:OnnxExporter",
    "tflite": "exporters.to_tflite:TfliteExporter",
}


def exporter_for(form: str) -> Exporter:
    """The exporter that writes files of that format; its module is loaded only now.

    Raises:
        BadInputError: no such format; names the nearest known ones.
    """
    if form not in EXPORTERS:
        raise unknown_name("format", form, EXPORTERS)
    module, _, name = EXPORTERS[form].partition(":")
    exporter: Exporter = getattr(importlib.import_module(module), name)()
    return exporter
