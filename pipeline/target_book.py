"""The boards that a user knows by name, and how to trust and be trusted by them.

targets.json        names, addresses, what each board said it is
credentials.json    mode 0600: certificates and tokens, which appear nowhere else
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from device_bench.errors import BadInputError, RunError, unknown_name
from device_bench.protocol import DeviceInfo, Record, RuntimeName
from device_bench.storage import locked, write_private, write_whole
from device_bench.wire import RuntimeInfo

LOCAL = "local"
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"

Content = TypeVar("Content", bound=Record)


class Device(Record):
    """A board with an agent, as it was when it was added or checked last.

    `device_class`: what boards that are alike are called together; siblings share work.
    """

    name: str = Field(pattern=NAME_PATTERN)
    url: str
    device: DeviceInfo
    runtimes: tuple[RuntimeInfo, ...]
    device_class: str | None = Field(default=None, pattern=NAME_PATTERN)

    @property
    def installed(self) -> tuple[RuntimeName, ...]:
        """The runtimes that it has."""
        return tuple(info.runtime for info in self.runtimes if info.version is not None)


class Credential(Record):
    """What proves an agent to us (its certificate, PEM) and us to it. Never to be shown."""

    certificate: str = Field(repr=False)
    token: str = Field(repr=False)


class _Devices(Record):
    devices: dict[str, Device] = Field(default_factory=dict)


class _Credentials(Record):
    credentials: dict[str, Credential] = Field(default_factory=dict, repr=False)


class TargetBook:
    """The devices in one folder. Several processes may use it at once.

    Args:
        folder: made with the first entry.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._devices_path = folder / "targets.json"
        self._credentials_path = folder / "credentials.json"

    def devices(self) -> dict[str, Device]:
        """All devices by name.

        Raises:
            BadInputError: the file is damaged.
        """
        return _read(_Devices, self._devices_path).devices

    def device(self, name: str) -> Device:
        """The device of that name.

        Raises:
            BadInputError: there is none; names the nearest.
        """
        devices = self.devices()
        if name not in devices:
            raise unknown_name("device", name, devices)
        return devices[name]

    def credential(self, url: str) -> Credential:
        """How to trust the agent at an address, and to be trusted by it.

        Raises:
            BadInputError: no device has that address, or its credential is gone.
        """
        for device in self.devices().values():
            if device.url == url:
                found = _read(_Credentials, self._credentials_path).credentials.get(device.name)
                if found is not None:
                    return found
        raise BadInputError(f"no agent at {url} was paired with; add it with `edgeloop targets add`")

    def add(self, device: Device, credential: Credential) -> None:
        """Write a device down, in place of an earlier one of that name.

        Raises:
            BadInputError: the name cannot be used, or another device has this address.
            RunError: it cannot be written.
        """
        check_name(device.name)
        with self._changing():
            devices = self.devices()
            _check_class(device, devices)
            for other in devices.values():
                if other.url == device.url and other.name != device.name:
                    raise BadInputError(
                        f"{device.url} is known as {other.name} already; use that name, or remove it first "
                        f"with `edgeloop targets remove {other.name}`"
                    )
            known = _read(_Credentials, self._credentials_path).credentials
            self._write(devices | {device.name: device}, known | {device.name: credential})

    def update(self, device: Device) -> None:
        """Write down what a known device says it is now; its class stays where none is given."""
        with self._changing():
            devices = self.devices()
            known = devices.get(device.name)
            if known is None:
                return
            now = device.model_copy(update={"device_class": device.device_class or known.device_class})
            if known != now:
                self._write(devices | {device.name: now}, None)

    def remove(self, name: str) -> None:
        """Forget a device and its credential.

        Raises:
            BadInputError: there is none; names the nearest.
        """
        with self._changing():
            self.device(name)
            devices = self.devices()
            known = _read(_Credentials, self._credentials_path).credentials
            self._write(
                {key: value for key, value in devices.items() if key != name},
                {key: value for key, value in known.items() if key != name},
            )

    def _write(self, devices: dict[str, Device], credentials: dict[str, Credential] | None) -> None:
        if credentials is not None:
            content = _Credentials(credentials=credentials).model_dump_json(indent=2)
            write_private(self._credentials_path, content.encode() + b"\n")
        write_whole(self._devices_path, _Devices(devices=devices).model_dump_json(indent=2).encode() + b"\n")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise RunError(
                f"cannot make the folder {self._folder}: {error.strerror or error}; set XDG_CONFIG_HOME to "
                "one that you may write"
            ) from error
        with locked(self._folder / "targets.lock"):
            yield


def _check_class(device: Device, devices: Mapping[str, Device]) -> None:
    """Classes and devices share their names' space: both are followed by a runtime to name a target."""
    classes = {known.device_class for known in devices.values()}
    if device.name in classes:
        raise BadInputError(f"{device.name} is a class of devices already; give this device another name")
    if device.device_class is not None:
        check_name(device.device_class)
        if device.device_class in devices or device.device_class == device.name:
            raise BadInputError(
                f"{device.device_class} is a device's name; give its class another one, such as "
                f"{device.device_class}s"
            )


def default_book() -> TargetBook:
    """The user's own: `$XDG_CONFIG_HOME/edgeloop`, or `~/.config/edgeloop`."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification: a path that is not absolute is to be ignored.
    base = Path(given) if given.startswith("/") else Path.home() / ".config"
    return TargetBook(base / "edgeloop")


def check_name(name: str) -> None:
    """Make sure that a device may be called that.

    Raises:
        BadInputError: it may not.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise BadInputError(
            "a device's name must be 1 to 63 lower-case letters, digits, '.', '_' or '-', and begin with a "
            f"letter or digit; got {name!r}"
        )
    endings = tuple(f"-{runtime.value}" for runtime in RuntimeName)
    if name == LOCAL or name.endswith(endings):
        raise BadInputError(
            f"{name!r} cannot be a device's name: {LOCAL!r} is this machine, and a name that ends in "
            f"{' or '.join(endings)} is that of a target; take another"
        )


def _read(kind: type[Content], path: Path) -> Content:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return kind()
    except (OSError, ValidationError) as error:
        # A damaged file of secrets must not be quoted.
        why = error.strerror if isinstance(error, OSError) else "it is damaged, or of another version"
        raise BadInputError(
            f"cannot read {path} ({why}); mend it, or move it away and pair again with `edgeloop targets add`"
        ) from None
