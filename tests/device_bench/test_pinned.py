"""Trust in one certificate: shown by a real TLS server, or by somebody else in its place."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_bench.agent.certificate import make_certificate
from device_bench.errors import BadInputError, UnreachableError, UntrustedAgentError
from device_bench.pinned import agent_url, days_left, fetch_certificate, pinned_context

NOW = datetime.now(UTC)


def made(folder: Path, name: str, when: datetime = NOW, days: int = 90) -> tuple[Path, str]:
    """A certificate with its key beside it, and its fingerprint."""
    path = folder / f"{name}.pem"
    fingerprint = make_certificate(path, path.with_suffix(".key"), ["127.0.0.1"], when, days)
    return path, fingerprint


@contextlib.contextmanager
def shown(certificate: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A TLS server that shows a certificate: its address, and all that clients sent it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                with contextlib.suppress(OSError):
                    plain, _ = listener.accept()
                    with plain, context.wrap_socket(plain, server_side=True) as client:
                        heard.append(client.recv(1000))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            port = listener.getsockname()[1]
            yield f"https://127.0.0.1:{port}", heard
        finally:
            stopping.set()
            with socket.create_connection(listener.getsockname()):
                pass
            thread.join()


def test_the_certificate_with_the_fingerprint_is_fetched(tmp_path: Path) -> None:
    path, fingerprint = made(tmp_path, "board")
    with shown(path) as (url, heard):
        pem = fetch_certificate(url, fingerprint)
        assert 88 < days_left(url, pem) < 91
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() == fingerprint
    assert set(heard) <= {b""}, "a handshake sends nothing"


def test_another_fingerprint_is_refused(tmp_path: Path) -> None:
    path, fingerprint = made(tmp_path, "board")
    _, other = made(tmp_path, "other")
    with shown(path) as (url, _), pytest.raises(UntrustedAgentError) as caught:
        fetch_certificate(url, other)
    assert fingerprint[:16] in str(caught.value)
    assert other[:16] in str(caught.value)


def test_another_certificate_of_the_same_names_is_not_trusted(tmp_path: Path) -> None:
    pinned, _ = made(tmp_path, "board")
    imposter, _ = made(tmp_path, "imposter")
    with (
        shown(imposter) as (url, _),
        pytest.raises(UntrustedAgentError, match="does not show the certificate"),
    ):
        days_left(url, pinned.read_text())


@pytest.mark.parametrize(
    ("when", "words"),
    [(NOW - timedelta(days=9), "has expired"), (NOW + timedelta(days=9), "not valid yet")],
    ids=["expired", "not yet valid"],
)
def test_a_certificate_counts_in_its_time_only(tmp_path: Path, when: datetime, words: str) -> None:
    path, fingerprint = made(tmp_path, "board", when, days=3)
    with shown(path) as (url, _):
        pem = fetch_certificate(url, fingerprint)
        with pytest.raises(UntrustedAgentError, match=words):
            days_left(url, pem)


def test_the_authorities_of_the_system_are_not_asked(tmp_path: Path) -> None:
    path, _ = made(tmp_path, "board")
    context = pinned_context(path.read_text())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.cert_store_stats()["x509"] == 1


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnreachableError, match="device-bench serve"):
        fetch_certificate(f"https://127.0.0.1:{port}", "0" * 64)


def test_no_tls_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                client.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(UnreachableError, match="does not answer with TLS"):
            fetch_certificate(f"https://127.0.0.1:{port}", "0" * 64)
        thread.join()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://pi4.lan", "https://pi4.lan:8443"),
        (" https://pi4.lan:9000/ ", "https://pi4.lan:9000"),
        ("https://[::1]:9000", "https://[::1]:9000"),
        ("https://PI4.lan", "https://pi4.lan:8443"),
    ],
)
def test_addresses_have_one_form(given: str, url: str) -> None:
    assert agent_url(given) == url


@pytest.mark.parametrize(
    "given",
    ["pi4.lan", "http://pi4.lan:8443", "https://", "https://pi4.lan:port", "https://pi4.lan:8443/v1",
     "https://me:secret@pi4.lan", "https://pi4.lan?x=1", ""],
)  # fmt: skip
def test_what_is_no_address_of_an_agent(given: str) -> None:
    with pytest.raises(BadInputError, match="address"):
        agent_url(given)
