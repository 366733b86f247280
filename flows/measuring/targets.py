"""`edgeloop targets add` and `remove`: the boards that a user knows by name."""

from __future__ import annotations

import sys

from device_bench.errors import BadInputError
from device_bench.screen import wide_console
from device_bench.wire import AgentInfo, Pairing
from pipeline.target import device_of, known_targets
from pipeline.target_book import Credential, Device, check_name, default_book

# Somebody stands before the board, so there is no use in waiting long for it.
_LOST_SECONDS = 10.0


def add_target(name: str, url: str, pair: str, device_class: str | None = None) -> int:
    """Pair with an agent and write its board down.

    Args:
        pair: the pairing line, or "-" to read it from standard input, where no history keeps it.
        device_class: what boards like it are called together.

    Raises:
        BadInputError: the name, address or line cannot be used, or the agent is another one.
        UnreachableError: nobody answers there.
    """
    from device_bench.client import AgentBench
    from device_bench.connection import AgentAddress, Patience
    from device_bench.pinned import agent_url, fetch_certificate

    check_name(name)
    url = agent_url(url)
    pairing = Pairing.from_line(sys.stdin.readline() if pair == "-" else pair)
    certificate = fetch_certificate(url, pairing.fingerprint)
    address = AgentAddress(url=url, token=pairing.token, certificate=certificate)
    info = AgentBench(address, Patience(lost_seconds=_LOST_SECONDS)).reach().info
    book = default_book()
    book.add(
        device_from(name, url, info, device_class), Credential(certificate=certificate, token=pairing.token)
    )
    console = wide_console()
    device = info.device
    emulated = "; emulated: its times are no latencies" if device.emulated else ""
    console.print(
        f"{name} is {device.hostname}: {device.cpu_count} × {device.cpu_model}, {device.machine}{emulated}",
        highlight=False,
        markup=False,
    )
    targets = ", ".join(target for target, known in known_targets(book).items() if known.where == url)
    console.print(f"targets: {targets or 'none, since it has no runtime'}", highlight=False, markup=False)
    console.print(f"look whether all is well: edgeloop targets check {name}", highlight=False, markup=False)
    return 0


def remove_target(name: str) -> int:
    """Forget a board and its credential.

    Raises:
        BadInputError: there is none of that name.
    """
    book = default_book()
    url = book.device(name).url
    book.remove(name)
    message = f"{name} ({url}) is forgotten; `device-bench token revoke` on the board takes its token back"
    wide_console().print(message, highlight=False, markup=False)
    return 0


def device_from(name: str, url: str, info: AgentInfo, device_class: str | None = None) -> Device:
    """What the book keeps of what an agent told."""
    return Device(name=name, url=url, device=info.device, runtimes=info.runtimes, device_class=device_class)


def known_device(name: str) -> Device:
    """The device of that name.

    Raises:
        BadInputError: there is none; a target's name is answered by its device's.
    """
    book = default_book()
    known = known_targets(book)
    if name in known:
        raise BadInputError(f"{name} is a target; name its device: {device_of(known[name])}")
    return book.device(name)
