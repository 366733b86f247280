"""What an agent knows of its board."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from device_bench import sensors, stability
from device_bench.agent.settings import AgentLimits
from device_bench.isolation import Stop, stopped_by
from device_bench.protocol import Failure, RuntimeName
from device_bench.wire import AgentInfo, RuntimeInfo

_LOG = logging.getLogger("device_bench.agent")

# The distributions that bring a runtime, in the order in which its module looks for them, and the extra.
_DISTRIBUTIONS: dict[RuntimeName, tuple[tuple[str, ...], str]] = {
    RuntimeName.ONNXRUNTIME: (("onnxruntime", "onnxruntime-gpu"), "onnxruntime"),
    RuntimeName.LITERT: (("ai-edge-litert", "tflite-runtime", "tensorflow"), "litert"),
    RuntimeName.TORCH: (("torch",), "pipeline"),
}


class Board:
    """The runtimes of this machine.

    At first only what the package lists tell; the libraries are large, so children look at them when the
    board has nothing else to do.
    """

    def __init__(self) -> None:
        self._runtimes = {name: _listed(name, *found) for name, found in _DISTRIBUTIONS.items()}

    def chores(self) -> list[Callable[[Stop], bool]]:
        """What is to be looked at; each runs in another thread and says whether it got to its end."""
        return [partial(self._look_at, name) for name in self._runtimes]

    def info(self, limits: AgentLimits, queued: int) -> AgentInfo:
        """The board as it fares now."""
        return AgentInfo(
            agent_version=version("edgeloop"),
            device=sensors.device_info(),
            runtimes=tuple(self._runtimes.values()),
            governor=sensors.governor(),
            frequency_mhz=sensors.frequency_mhz(),
            temperature_c=sensors.temperature_c(),
            load_1m=sensors.load_1m(),
            advice=stability.advice(),
            clock_unix_ns=time.time_ns(),
            queued=queued,
            queue_limit=limits.queue,
            artifact_limit_bytes=limits.artifact_bytes,
            cache_limit_bytes=limits.cache_bytes,
        )

    def _look_at(self, name: RuntimeName, stop: Stop) -> bool:
        # numpy comes with it, which need not delay the start.
        from device_bench import local

        with stopped_by(stop):
            found = local.describe(name)
        if stop.failure is not None:
            return False
        if isinstance(found, Failure):
            _LOG.info("%s cannot be used: %s", name.value, found.message)
            self._runtimes[name] = RuntimeInfo(runtime=name, version=None, note=found.message)
        else:
            self._runtimes[name] = RuntimeInfo(
                runtime=name, version=found.version, accelerators=found.accelerators
            )
        return True


def _listed(name: RuntimeName, distributions: tuple[str, ...], extra: str) -> RuntimeInfo:
    for distribution in distributions:
        try:
            found = version(distribution)
        except PackageNotFoundError:
            continue
        text = found if distribution.startswith(name.value) else f"{distribution} {found}"
        return RuntimeInfo(runtime=name, version=text, accelerators=("cpu",))
    return RuntimeInfo(runtime=name, version=None, note=f'install it with: pip install "edgeloop[{extra}]"')
