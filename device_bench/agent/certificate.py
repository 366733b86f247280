"""The agent's key pair and self-signed certificate, and the fingerprint by which clients know it."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from device_bench.errors import BadInputError, MissingExtraError
from device_bench.storage import write_private

if TYPE_CHECKING:
    from cryptography import x509

# The longest validity that Apple's and Mozilla's clients accept of a server certificate.
DEFAULT_DAYS = 825
# A board without a battery clock starts in the past; a client's clock may be behind, too.
_BACKDATED = timedelta(days=1)


def make_certificate(
    certificate: Path, key: Path, names: Sequence[str], now: datetime, days: int = DEFAULT_DAYS
) -> str:
    """Make an EC P-256 key and a certificate that it signs, and write both.

    Args:
        certificate: where the certificate goes, PEM.
        key: where the private key goes, PEM (PKCS #8), mode 0600.
        names: host names and addresses under which clients reach the agent; at least one.
        now: an aware time from which the certificate is valid.
        days: how long it is valid.

    Returns:
        The certificate's fingerprint.

    Raises:
        BadInputError: a name or the number of days cannot be used.
        MissingExtraError: `cryptography` is not installed.
    """
    if not 1 <= days <= 36500:
        raise BadInputError(f"days must be from 1 to 36500; got {days}")
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID
    except ModuleNotFoundError as error:
        raise MissingExtraError("cryptography", "agent") from error
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-bench")])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(key, pem)
    write_private(certificate, made.public_bytes(serialization.Encoding.PEM))
    return fingerprint(certificate)


def fingerprint(certificate: Path) -> str:
    """SHA-256 of the DER form of a PEM file's first certificate, hex.

    Raises:
        BadInputError: there is no certificate in it.
    """
    try:
        text = certificate.read_text(encoding="ascii")
        begin = text.index(ssl.PEM_HEADER)
        end = text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
        der = ssl.PEM_cert_to_DER_cert(text[begin:end])
    except FileNotFoundError as error:
        raise BadInputError(
            f"there is no certificate {certificate}; make one with `device-bench init`"
        ) from error
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot read a PEM certificate from {certificate}: {error}") from error
    return hashlib.sha256(der).hexdigest()


def check_pair(certificate: Path, key: Path) -> None:
    """Make sure that a certificate and a key belong together.

    Raises:
        BadInputError: one is missing or unreadable, the key wants a password, or they do not match.
    """
    for path, option in ((certificate, "--cert"), (key, "--key")):
        if not path.is_file():
            raise BadInputError(
                f"there is no file {path}; make it with `device-bench init`, or give your own with {option}"
            )

    def refuse() -> str:
        raise BadInputError(f"the key {key} wants a password; give one without")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=refuse)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise BadInputError(f"{certificate} and {key} cannot serve TLS together: {error}") from error


def own_names() -> tuple[str, ...]:
    """Names and addresses of this machine, for a certificate: host name, `.local`, loopback, interfaces."""
    import psutil

    host = socket.gethostname().rstrip(".") or "localhost"
    names = [host, "localhost"]
    if "." not in host:
        names.insert(1, f"{host}.local")  # what multicast DNS calls a board
    names += ["127.0.0.1", "::1"]
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family in (socket.AF_INET, socket.AF_INET6) and "%" not in address.address:
                names.append(address.address)
    return tuple(dict.fromkeys(names))


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        ascii_name = name.encode("idna").decode("ascii")
        if not ascii_name or not all(c.isalnum() or c in "-.*_" for c in ascii_name):
            raise ValueError("letters, digits, hyphens and dots only")
        return x509.DNSName(ascii_name)
    except ValueError as error:  # UnicodeError is one
        raise BadInputError(f"{name!r} is neither a host name nor an address: {error}") from error
