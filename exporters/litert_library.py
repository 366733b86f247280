"""Loads litert_torch once, quietly and only when it is needed: its import takes seconds and talks."""

from __future__ import annotations

from typing import Any

import torch

from device_bench.errors import MissingExtraError
from exporters.quiet import captured_output


def warm_up() -> None:
    """Import the converter and the quantizer, so that the first export need not; for a background thread.

    Raises:
        MissingExtraError: they are not installed.
    """
    converter()
    quantizer()


def converter() -> Any:
    """The module `litert_torch`, with its progress lines off."""
    with captured_output():
        try:
            import litert_torch
            from litert_torch import _config
        except ImportError as error:
            raise MissingExtraError("litert_torch", "pipeline") from error
    # It prints to standard output, which belongs to our callers' JSON.
    _config.config.show_progress = False
    return litert_torch


def quantizer() -> Any:
    """The module `ai_edge_quantizer`."""
    with captured_output():
        try:
            import ai_edge_quantizer
        except ImportError as error:
            raise MissingExtraError("ai_edge_quantizer", "pipeline") from error
    return ai_edge_quantizer


def convert(module: torch.nn.Module, example: torch.Tensor) -> bytes:
    """A float TFLite file of `module`; pictures come in channels last.

    Args:
        module: in evaluation mode.
        example: float32 [1, *input_shape], channels first.

    Raises:
        ConversionError: the converter failed; with what it and its native parts said.
    """
    library = converter()
    pictures = example.ndim == 4
    wrapped = library.to_channel_last_io(module, args=[0]) if pictures else module
    sample = example.permute(0, 2, 3, 1).contiguous() if pictures else example
    try:
        with captured_output() as captured, torch.no_grad():
            return bytes(library.convert(wrapped.eval(), (sample,)).model_content())
    except Exception as error:
        raise ConversionError(captured.said()) from error


class ConversionError(Exception):
    """The converter failed; the message is what its native parts wrote, the cause is Python's error."""
