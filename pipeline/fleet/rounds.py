"""One round of the fleet benchmark: which visits are due, and what the history says after them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from pydantic import Field

from device_bench.protocol import Record, RuntimeName
from pipeline.fleet.history import Watched
from pipeline.fleet.history_store import HistoryStore
from pipeline.fleet.regression import Figure, Finding, State, judge
from pipeline.fleet.release import Release
from pipeline.target import LOCAL_TARGETS
from pipeline.target_book import LOCAL, Device

# A quarter of a year of daily visits.
JUDGED_VISITS = 90


class Station(Record):
    """A device as a round sees it. `where`: "local" or its agent's URL."""

    name: str
    where: str
    runtimes: tuple[RuntimeName, ...]
    device_class: str | None = None

    @classmethod
    def of(cls, device: Device) -> Station:
        """A board of the book."""
        return cls(
            name=device.name,
            where=device.url,
            runtimes=device.installed,
            device_class=device.device_class,
        )

    def fits(self, release: Release) -> bool:
        """True if a release is meant for this device and can run on it."""
        meant = release.device_class in (None, self.device_class)
        return meant and release.runtime in self.runtimes


class Due(Record):
    """A visit to make."""

    watched: Watched
    release: Release
    station: Station


class DeviceRound(Record):
    """What a round made of one device.

    `skipped`: why it was left, where its board went away or is emulated; what was due there waits for the
    next round. `failed`: by release, why it could not be measured.
    """

    device: str
    measured: int = 0
    known: int = 0
    skipped: str | None = None
    failed: dict[str, str] = Field(default_factory=dict)


class FleetRound(Record):
    """A round of the benchmark. `findings`: of every figure of what was visited in it."""

    round_id: str
    started_at: datetime
    devices: tuple[DeviceRound, ...]
    findings: tuple[Finding, ...]

    @property
    def regressions(self) -> tuple[Finding, ...]:
        """What got worse."""
        return tuple(finding for finding in self.findings if finding.state is State.WORSE)

    @property
    def visits(self) -> int:
        """Measured in this round, before a kill of it or after."""
        return sum(device.measured + device.known for device in self.devices)


def due(releases: Iterable[Release], station: Station) -> list[Due]:
    """What is to be visited on a device: every release that fits it."""
    return [
        Due(
            watched=Watched(
                release=release.name,
                sha256=release.sha256,
                device=station.name,
                runtime=release.runtime,
                threads=release.threads,
            ),
            release=release,
            station=station,
        )
        for release in releases
        if station.fits(release)
    ]


def findings_of(history: HistoryStore, watched: Sequence[Watched]) -> tuple[Finding, ...]:
    """What the last `JUDGED_VISITS` of each of them say of each figure, what got worse first.

    What nobody mended in as many visits is the level.
    """
    found = []
    for one in watched:
        visits, accepted = history.visits(one, JUDGED_VISITS), history.accepted_at(one)
        found += [judge(visits, figure, accepted) for figure in Figure]
    told = [finding for finding in found if finding is not None]
    return tuple(sorted(told, key=lambda finding: finding.state is not State.WORSE))


def local_station() -> Station:
    """This machine, with the runtimes that edgeloop compresses for."""
    return Station(
        name=LOCAL,
        where=LOCAL,
        runtimes=tuple(target.runtime for target in LOCAL_TARGETS.values()),
    )
