"""Which numbers a module's code passes to torch when it runs, module by module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Call:
    """One call of a torch function: its name, the numbers among its arguments, and its outputs' sizes."""

    function: str
    numbers: tuple[float, ...]
    sizes: tuple[int, ...]


def record(module: nn.Module, example: torch.Tensor) -> tuple[dict[str, tuple[Call, ...]], torch.Tensor]:
    """Run `module` on `example`.

    Returns:
        the calls of each module's own code (not of its children), by the module's name, in order;
        and the module's output.
    """
    recorder = _Recorder()
    handles: list[Any] = []
    for name, layer in module.named_modules():
        handles.append(layer.register_forward_pre_hook(recorder.enter(name)))
        handles.append(layer.register_forward_hook(recorder.leave))
    try:
        with torch.no_grad(), recorder:
            output: torch.Tensor = module(example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: tuple(calls) for name, calls in recorder.calls.items()}, output


class _Recorder(TorchFunctionMode):
    """Notes every torch function called from Python, under the module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[Call]] = {}
        self._running: list[str] = []

    def enter(self, name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            self._running.append(name)

        return hook

    def leave(self, *_: object) -> None:
        self._running.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._running and getattr(func, "__name__", "") != "__get__":
            sizes = tuple(_sizes(result))
            call = Call(func.__name__, tuple(_numbers((args, kwargs or {}))), sizes)
            self.calls.setdefault(self._running[-1], []).append(call)
        return result


def _numbers(value: Any) -> Iterator[float]:
    """Numbers in nested arguments, in order; tensors are passed over."""
    if isinstance(value, bool | torch.Tensor):
        return
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, slice):
        yield from _numbers((value.start, value.stop, value.step))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


def _sizes(value: Any) -> Iterator[int]:
    if isinstance(value, torch.Tensor):
        yield from value.shape
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sizes(item)
