"""Tokens: scoped, dated, revocable, and stored as digests alone."""

from __future__ import annotations

import hmac
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_bench.agent.tokens import Tokens
from device_bench.errors import BadInputError, RunError
from device_bench.wire import Scope


@dataclass
class WallClock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def tokens(tmp_path: Path, clock: WallClock) -> Tokens:
    return Tokens(tmp_path / "tokens.json", clock)


def test_a_token_is_found_with_its_scope(tokens: Tokens) -> None:
    read, measure = tokens.add("a", Scope.READ), tokens.add("b", Scope.MEASURE)
    found = tokens.find(read), tokens.find(measure)
    assert [(t.name, t.scope) for t in found if t is not None] == [("a", Scope.READ), ("b", Scope.MEASURE)]


@pytest.mark.parametrize("wrong", ["", "x", "\ud800", "é" * 300])
def test_what_is_no_token(tokens: Tokens, wrong: str) -> None:
    token = tokens.add("a", Scope.READ)
    assert tokens.find(wrong) is None
    assert tokens.find(token[:-1]) is None
    assert tokens.find(token + "x") is None


def test_no_tokens_at_all(tokens: Tokens) -> None:
    assert tokens.list() == ()
    assert tokens.find("anything") is None


def test_only_digests_are_stored_for_the_owner_alone(tokens: Tokens, tmp_path: Path) -> None:
    token = tokens.add("a", Scope.READ)
    for path in tmp_path.iterdir():
        assert token not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_tokens_are_long_and_unlike(tokens: Tokens) -> None:
    made = {tokens.add(f"t{number}", Scope.READ) for number in range(20)}
    assert len(made) == 20
    assert min(map(len, made)) >= 43  # 256 bits in base 64


def test_expiry(tokens: Tokens, clock: WallClock) -> None:
    token = tokens.add("a", Scope.READ, valid_seconds=60)
    clock.now += 59
    assert tokens.find(token) is not None
    clock.now += 1
    assert tokens.find(token) is None
    assert [kept.name for kept in tokens.list()] == ["a"]


def test_revoking_is_seen_by_a_running_agent(tokens: Tokens, tmp_path: Path, clock: WallClock) -> None:
    first, second = tokens.add("a", Scope.READ), tokens.add("b", Scope.READ)
    agent = Tokens(tmp_path / "tokens.json", clock)
    assert agent.find(first) is not None
    tokens.revoke("a")
    assert agent.find(first) is None
    assert agent.find(second) is not None
    third = tokens.add("c", Scope.READ)
    assert agent.find(third) is not None


def test_replacing_all(tokens: Tokens) -> None:
    old = tokens.add("a", Scope.READ)
    new = tokens.replace_all("first", Scope.MEASURE)
    assert tokens.find(old) is None
    assert tokens.find(new) is not None


def test_a_name_is_taken_once(tokens: Tokens) -> None:
    tokens.add("a", Scope.READ)
    with pytest.raises(BadInputError, match="token revoke a"):
        tokens.add("a", Scope.MEASURE)
    assert len(tokens.list()) == 1


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "ü", "a" * 65])
def test_names_that_are_none(tokens: Tokens, name: str) -> None:
    with pytest.raises(BadInputError, match="1 to 64 letters"):
        tokens.add(name, Scope.READ)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_validity_must_be_positive(tokens: Tokens, seconds: float) -> None:
    with pytest.raises(BadInputError, match="more than 0 seconds"):
        tokens.add("a", Scope.READ, seconds)


def test_revoking_a_stranger_names_the_known(tokens: Tokens) -> None:
    tokens.add("laptop", Scope.READ)
    with pytest.raises(BadInputError, match="did you mean laptop"):
        tokens.revoke("labtop")


@pytest.mark.parametrize("content", [b"", b"{", b'{"tokens": [{"name": "a"}]}', b"\xff"])
def test_a_damaged_file_lets_nobody_in(tokens: Tokens, tmp_path: Path, content: bytes) -> None:
    token = tokens.add("a", Scope.READ)
    (tmp_path / "damaged").write_bytes(content)
    (tmp_path / "damaged").replace(tmp_path / "tokens.json")
    for _ in range(2):
        with pytest.raises(RunError, match="init --force"):
            tokens.find(token)


def test_every_digest_is_compared(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [tokens.add(f"t{number}", Scope.READ) for number in range(5)]
    compared: list[tuple[str, str]] = []
    constant_time = hmac.compare_digest

    def count(a: str, b: str) -> bool:
        compared.append((a, b))
        return constant_time(a, b)

    monkeypatch.setattr(hmac, "compare_digest", count)
    for token in (made[0], made[4], "wrong"):
        compared.clear()
        tokens.find(token)
        assert len(compared) == 5
