"""What an agent tells about its board."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version

from device_bench import sensors
from device_bench.agent.settings import AgentLimits
from device_bench.protocol import RuntimeName
from device_bench.wire import AgentInfo, RuntimeInfo

# The distributions that bring a runtime, in the order in which its module looks for them, and the extra.
_DISTRIBUTIONS: dict[RuntimeName, tuple[tuple[str, ...], str]] = {
    RuntimeName.ONNXRUNTIME: (("onnxruntime", "onnxruntime-gpu"), "onnxruntime"),
    RuntimeName.LITERT: (("ai-edge-litert", "tflite-runtime", "tensorflow"), "litert"),
}


def runtimes() -> tuple[RuntimeInfo, ...]:
    """The runtimes and whether they are installed. None is imported: they are large, and an agent idles."""
    return tuple(_runtime(name, *found) for name, found in _DISTRIBUTIONS.items())


def agent_info(limits: AgentLimits, installed: tuple[RuntimeInfo, ...], queued: int) -> AgentInfo:
    """The board as it fares now."""
    return AgentInfo(
        agent_version=version("edgeloop"),
        device=sensors.device_info(),
        runtimes=installed,
        governor=sensors.governor(),
        frequency_mhz=sensors.frequency_mhz(),
        temperature_c=sensors.temperature_c(),
        load_1m=sensors.load_1m(),
        clock_unix_ns=time.time_ns(),
        queued=queued,
        queue_limit=limits.queue,
        artifact_limit_bytes=limits.artifact_bytes,
        cache_limit_bytes=limits.cache_bytes,
    )


def _runtime(name: RuntimeName, distributions: tuple[str, ...], extra: str) -> RuntimeInfo:
    for distribution in distributions:
        try:
            found = version(distribution)
        except PackageNotFoundError:
            continue
        return RuntimeInfo(runtime=name, version=f"{distribution} {found}", accelerators=("cpu",))
    return RuntimeInfo(runtime=name, version=None, note=f'install it with: pip install "edgeloop[{extra}]"')
