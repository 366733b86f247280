"""Trust in one certificate: the one whose fingerprint the pairing line carried.

An agent signs its own certificate, so no authority vouches for it. Its fingerprint came by another way,
from the board's screen; whoever holds that certificate's key is the agent, by whatever name it is reached.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import time
from urllib.parse import urlsplit

from device_bench.errors import BadInputError, UnreachableError, UntrustedAgentError

DEFAULT_PORT = 8443
_TIMEOUT_SECONDS = 10.0
# OpenSSL's numbers for certificates outside of their time (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10


def agent_url(text: str) -> str:
    """An agent's address in one form, "https://host:port"; without a port 8443 is meant.

    Raises:
        BadInputError: it is no HTTPS address, or has parts that an agent's address has not.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise BadInputError(f"{text!r} is no address: {error}; give https://HOST:PORT") from error
    if parts.scheme != "https" or not parts.hostname:
        raise BadInputError(f"an agent's address must be https://HOST or https://HOST:PORT; got {text!r}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username or parts.password:
        raise BadInputError(f"an agent's address ends with its port; got {text!r}: give https://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}:{DEFAULT_PORT if port is None else port}"


def fetch_certificate(url: str, fingerprint: str) -> str:
    """The certificate that an agent shows, PEM, if it is the one with this fingerprint. Nothing is sent.

    Raises:
        UntrustedAgentError: it shows another one.
        UnreachableError: nobody answers there, or not with TLS.
    """
    # Nothing is trusted yet: whoever answers is compared with the fingerprint, and told nothing.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _handshake(url, context) as agent:
        der = agent.getpeercert(binary_form=True) or b""
    found = hashlib.sha256(der).hexdigest()
    if not hmac.compare_digest(found, fingerprint):
        raise UntrustedAgentError(
            f"{url} shows a certificate with the fingerprint {found[:16]}…, and the pairing line says "
            f"{fingerprint[:16]}…: this is another machine, or its certificate was made anew; pair with the "
            "line that `device-bench init` printed on this very board"
        )
    return ssl.DER_cert_to_PEM_cert(der)


def pinned_context(certificate: str) -> ssl.SSLContext:
    """TLS that trusts this certificate (PEM) and nothing else, as long as it is valid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The certificate itself is pinned, so the name it is reached by proves nothing more.
    context.check_hostname = False
    # A certificate that another one signed can be pinned, too, without trusting its signer.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    return context


def days_left(url: str, certificate: str) -> float:
    """For how many days the certificate that an agent shows will still be valid.

    Raises:
        UntrustedAgentError: it shows another certificate than this one (PEM), or it has expired.
        UnreachableError: nobody answers there, or not with TLS.
    """
    with _handshake(url, pinned_context(certificate)) as agent:
        shown = agent.getpeercert() or {}
    return (ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time()) / 86400


def distrust(url: str, error: BaseException) -> UntrustedAgentError | None:
    """What to say if an error came of a certificate that is not trusted; None if not."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if cause.verify_code == _EXPIRED:
        return UntrustedAgentError(
            f"the certificate of {url} has expired (or this machine's clock is ahead); make a new one on the "
            "board with `device-bench init --force` and pair again with `edgeloop targets add`"
        )
    if cause.verify_code == _NOT_YET_VALID:
        return UntrustedAgentError(
            f"the certificate of {url} is not valid yet: this machine's clock is behind, or the board's was "
            "ahead when it was made; set the clocks"
        )
    return UntrustedAgentError(
        f"{url} does not show the certificate that was pinned ({cause.verify_message}); nothing was sent to "
        "it. If the board was set up anew, pair again with `edgeloop targets add`; if not, another machine "
        "answers in its place"
    )


def _handshake(url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    try:
        plain = socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS)
    except OSError as error:
        raise UnreachableError(
            f"cannot reach {url}: {error.strerror or error}; is `device-bench serve` running there?"
        ) from error
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except OSError as error:  # ssl.SSLError is one
        plain.close()
        raise distrust(url, error) or UnreachableError(
            f"{url} does not answer with TLS: {error.strerror or error}; is this the agent's port?"
        ) from error
