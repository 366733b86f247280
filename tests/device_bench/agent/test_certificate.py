"""Keys, certificates and fingerprints."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_bench.agent.certificate import check_pair, fingerprint, make_certificate, own_names
from device_bench.errors import BadInputError, MissingExtraError

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path, str]:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    names = ("pi4", "pi4.local", "bücher.lan", "192.168.1.7", "fd00::7")
    return certificate, key, make_certificate(certificate, key, names, NOW)


def test_what_a_certificate_says(made: tuple[Path, Path, str]) -> None:
    certificate, _, found = made
    read = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["pi4", "pi4.local", "xn--bcher-kva.lan"]
    addresses = [ipaddress.ip_address("192.168.1.7"), ipaddress.ip_address("fd00::7")]
    assert names.get_values_for_type(x509.IPAddress) == addresses
    assert read.not_valid_before_utc == NOW - timedelta(days=1)
    assert read.not_valid_after_utc == NOW + timedelta(days=825)
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    public = read.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    der = read.public_bytes(serialization.Encoding.DER)
    assert found == fingerprint(certificate) == hashlib.sha256(der).hexdigest()


def test_the_key_is_its_owners_alone_and_fits(made: tuple[Path, Path, str]) -> None:
    certificate, key, _ = made
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    check_pair(certificate, key)


def test_every_key_is_new(tmp_path: Path) -> None:
    prints = {make_certificate(tmp_path / "c", tmp_path / "k", ["a"], NOW) for _ in range(2)}
    assert len(prints) == 2


@pytest.mark.parametrize("name", ["", "two words", "a/b", "a\nb", "a" * 300])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="neither a host name nor an address"):
        make_certificate(tmp_path / "c", tmp_path / "k", [name], NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, -1, 36501])
def test_days_out_of_range(tmp_path: Path, days: int) -> None:
    with pytest.raises(BadInputError, match=f"got {days}"):
        make_certificate(tmp_path / "c", tmp_path / "k", ["a"], NOW, days)


def test_a_key_of_another_certificate(made: tuple[Path, Path, str], tmp_path: Path) -> None:
    certificate, _, _ = made
    make_certificate(tmp_path / "other", tmp_path / "other-key", ["a"], NOW)
    with pytest.raises(BadInputError, match="cannot serve TLS together"):
        check_pair(certificate, tmp_path / "other-key")


def test_a_key_with_a_password(made: tuple[Path, Path, str], tmp_path: Path) -> None:
    certificate, key, _ = made
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(BadInputError, match="wants a password"):
        check_pair(certificate, locked)


def test_missing_files_name_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="device-bench init"):
        check_pair(tmp_path / "c", tmp_path / "k")
    with pytest.raises(BadInputError, match="device-bench init"):
        fingerprint(tmp_path / "c")


@pytest.mark.parametrize("content", [b"", b"no pem", b"\xff\xfe", ssl.PEM_HEADER.encode()])
def test_fingerprint_of_no_certificate(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pem"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="cannot read a PEM certificate"):
        fingerprint(path)


def test_fingerprint_of_a_chain_is_its_first(made: tuple[Path, Path, str], tmp_path: Path) -> None:
    certificate, _, found = made
    make_certificate(tmp_path / "other", tmp_path / "other-key", ["a"], NOW)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"a comment\n" + certificate.read_bytes() + (tmp_path / "other").read_bytes())
    assert fingerprint(chain) == found


def test_own_names_make_a_certificate(tmp_path: Path) -> None:
    names = own_names()
    assert {"localhost", "127.0.0.1", "::1"} <= set(names)
    assert len(names) == len(set(names))
    make_certificate(tmp_path / "c", tmp_path / "k", names, NOW)


def test_without_cryptography(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingExtraError, match=r"edgeloop\[agent\]"):
        make_certificate(tmp_path / "c", tmp_path / "k", ["a"], NOW)
