"""Many clients at once, each on its own TLS connection, and what became of them."""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from live_agent import LiveAgent, request_of, sha256

from device_bench.protocol import Failure, RuntimeName
from device_bench.wire import JobState, JobStatus, MeasureJob, Outcome

# The last jobs in line are waited for after the time is up; an agent that hangs fails the test.
_PATIENCE_SECONDS = 120.0


@dataclass
class Fate:
    """What one client lived through. `told`: the seconds after which it was told to come back."""

    outcomes: list[Outcome] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)

    @property
    def served(self) -> int:
        """How many jobs were measured."""
        return sum(not isinstance(outcome, Failure) for outcome in self.outcomes)


def crowd(agent: LiveAgent, clients: int, seconds: float, logs: Path) -> list[Fate]:
    """All clients ask for jobs at once, again and again for that long, and come back when they are told.

    Each uploads a file of its own that makes the fake runtime log its runs under `logs`.
    """

    async def everyone() -> list[Fate]:
        context = agent.context()
        stop = time.monotonic() + seconds
        asking = (one(agent, context, stop, logs / f"{number}.log", number) for number in range(clients))
        return await asyncio.gather(*asking)

    return asyncio.run(everyone())


async def one(agent: LiveAgent, context: ssl.SSLContext, stop: float, log: Path, number: int) -> Fate:
    """One client's life."""
    fate = Fate()
    draw = random.Random(number)
    content = f"log {log}".encode()
    request = request_of(sha256(content), RuntimeName.LITERT)
    body = MeasureJob(request=request).model_dump_json()
    async with httpx.AsyncClient(
        base_url=agent.url,
        headers={"authorization": f"Bearer {agent.token}", "content-type": "application/json"},
        verify=context,
        timeout=_PATIENCE_SECONDS,
        trust_env=False,
    ) as client:
        while not (await client.put(f"/v1/artifacts/{sha256(content)}", content=content)).is_success:
            await asyncio.sleep(0.5)
        # At least once, however long it took to get here.
        while time.monotonic() < stop or not (fate.outcomes or fate.told):
            path = f"/v1/jobs/{secrets.token_hex(16)}"
            answer = await client.put(path, content=body)
            if answer.status_code in (429, 503):
                after = answer.headers.get("retry-after", "")
                if not after.isdigit() or int(after) < 1:
                    fate.untold.append(f"{answer.status_code} {after!r} {answer.text}")
                    return fate
                fate.told.append(int(after))
                # A little later than told, as real clients are: not all in the same moment.
                await asyncio.sleep(min(int(after) + draw.random(), max(0.0, stop - time.monotonic())))
                continue
            if draw.random() < 0.5:  # as a client does whose connection broke before the answer came
                answer = await client.put(path, content=body)
            fate.outcomes.append(await followed(client, path, answer))
    return fate


async def followed(client: httpx.AsyncClient, path: str, answer: httpx.Response) -> Outcome:
    """Wait for the end of a job that was taken."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while True:
        assert answer.status_code == 200, answer.text
        status = JobStatus.model_validate_json(answer.content)
        if status.state is JobState.DONE:
            assert status.outcome is not None
            return status.outcome
        assert time.monotonic() < give_up, f"{path} does not end"
        answer = await client.get(path, params={"wait": 5})


@dataclass(frozen=True)
class Stretch:
    """From the first run of one measuring process to its last, in ns of the monotonic clock."""

    start: int
    end: int
    runs: int


def stretches(log: Path) -> list[Stretch]:
    """The measuring processes that one client's file was run by."""
    runs: dict[str, list[tuple[int, int]]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        process, start, end = line.split()
        runs.setdefault(process, []).append((int(start), int(end)))
    return [Stretch(min(r)[0], max(end for _, end in r), len(r)) for r in runs.values()]
