"""`device-bench init`, `token` and what `serve` refuses."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result

from device_bench.agent.certificate import fingerprint, make_certificate
from device_bench.agent.settings import default_state
from device_bench.agent.tokens import Tokens
from device_bench.cli import app
from device_bench.wire import Pairing, Scope


def run(state: Path, *words: str) -> Result:
    # Imported here, after device_bench.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [*words, "--state", str(state)])


def pairing_in(output: str) -> Pairing:
    (line,) = [line for line in output.splitlines() if line.startswith("edgeloop-pair-1:")]
    return Pairing.from_line(line)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    assert run(made, "init").exit_code == 0
    return made


def test_init_prints_what_pairs_a_laptop(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    done = run(state, "init")
    assert done.exit_code == 0, done.output
    pairing = pairing_in(done.output)
    assert pairing.fingerprint == fingerprint(state / "certificate.pem")
    token = Tokens(state / "tokens.json", lambda: 0).find(pairing.token)
    assert token is not None
    assert token.scope is Scope.MEASURE
    assert f"--pair '{pairing.line()}'" in done.output
    assert "edgeloop targets add" in done.output
    assert "device-bench serve" in done.output
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ("key.pem", "tokens.json"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600


def test_init_does_not_overwrite_unless_forced(state: Path) -> None:
    before = fingerprint(state / "certificate.pem")
    refused = run(state, "init")
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert fingerprint(state / "certificate.pem") == before
    run(state, "token", "add", "laptop")
    forced = run(state, "init", "--force", "--json")
    assert forced.exit_code == 0
    said = json.loads(forced.stdout)
    assert said["fingerprint"] == fingerprint(state / "certificate.pem") != before
    assert [token.name for token in Tokens(state / "tokens.json", lambda: 0).list()] == ["first"]


def test_init_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    found = make_certificate(certificate, key, ["board.example"], datetime.now(UTC))
    alone = run(tmp_path / "state", "init", "--cert", str(certificate))
    assert alone.exit_code == 2
    assert "--cert and --key together" in alone.output
    done = run(tmp_path / "state", "init", "--cert", str(certificate), "--key", str(key))
    assert done.exit_code == 0, done.output
    assert pairing_in(done.output).fingerprint == found
    assert (tmp_path / "state" / "key.pem").read_bytes() == key.read_bytes()


def test_init_with_names_and_days(tmp_path: Path) -> None:
    from cryptography import x509

    done = run(tmp_path / "s", "init", "--name", "pi4.lan", "--name", "10.0.0.7", "--days", "30")
    assert "edgeloop targets add pi4.lan https://pi4.lan:" in done.output
    assert done.exit_code == 0, done.output
    read = x509.load_pem_x509_certificate((tmp_path / "s" / "certificate.pem").read_bytes())
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["pi4.lan", "10.0.0.7"]
    assert (read.not_valid_after_utc - datetime.now(UTC)).days in (29, 30)
    refused = run(tmp_path / "t", "init", "--name", "no name")
    assert refused.exit_code == 2
    assert "neither a host name nor an address" in refused.output


def test_a_token_is_added_listed_and_revoked(state: Path) -> None:
    added = run(state, "token", "add", "screen", "--scope", "read", "--days", "7")
    assert added.exit_code == 0, added.output
    secret = pairing_in(added.output).token
    listed = run(state, "token", "list")
    assert "first  measure  until revoked" in listed.output
    assert "screen  read  until 20" in listed.output
    assert secret not in listed.output
    names = [token["name"] for token in json.loads(run(state, "token", "list", "--json").stdout)["tokens"]]
    assert names == ["first", "screen"]
    assert run(state, "token", "revoke", "screen").exit_code == 0
    assert Tokens(state / "tokens.json", lambda: 0).find(secret) is None
    again = run(state, "token", "revoke", "screen")
    assert again.exit_code == 2
    assert "known: first" in again.output


def test_tokens_need_a_certificate_first(tmp_path: Path) -> None:
    done = run(tmp_path / "state", "token", "add", "laptop")
    assert done.exit_code == 2
    assert "device-bench init" in done.output


def test_an_unknown_scope(state: Path) -> None:
    done = run(state, "token", "add", "laptop", "--scope", "reed")
    assert done.exit_code == 2
    assert "did you mean read" in done.output


def test_serve_before_init(tmp_path: Path) -> None:
    # In a process of its own, as it sets up the logging of the whole process.
    words = ["serve", "--state", str(tmp_path / "state")]
    done = subprocess.run(
        [sys.executable, "-m", "device_bench.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "device-bench init" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [("/var/lib/x", "/var/lib/x/device-bench"), ("relative", None), ("", None)],
)
def test_where_the_state_is(monkeypatch: pytest.MonkeyPatch, given: str, expected: str | None) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", given)
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_state() == Path(expected or "/home/someone/.local/state/device-bench")
