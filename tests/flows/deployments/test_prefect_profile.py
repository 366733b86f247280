"""Prefect's profile while a server stands, after it, and after one that was killed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_PROFILES_PATH, temporary_settings
from prefect.settings.profiles import load_profiles, save_profiles

from device_bench.errors import BadInputError
from flows.deployments.profile import point_profile, put_right, restore_profile, tidy_after_kill
from flows.deployments.standing import Office, Standing

URL = "http://127.0.0.1:4299/api"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path) -> Iterator[Path]:
    """A Prefect home in which nobody has chosen a profile."""
    with temporary_settings(
        {PREFECT_HOME: tmp_path, PREFECT_PROFILES_PATH: tmp_path / "profiles.toml"}, restore_defaults=set()
    ):
        yield tmp_path


def active() -> tuple[str | None, str | None]:
    """The active profile and the URL that it tells of."""
    profiles = load_profiles()
    found = profiles.active_profile
    return profiles.active_name, None if found is None else found.settings.get(PREFECT_API_URL)


def test_the_profile_stands_in_and_goes() -> None:
    before = point_profile(URL)
    assert before == "ephemeral"
    assert active() == ("edgeloop", URL)
    restore_profile(before)
    assert active() == ("ephemeral", None)


def test_one_that_tells_of_the_server_already_stays() -> None:
    profiles = load_profiles()
    profiles.update_profile("mine", {PREFECT_API_URL: URL})
    profiles.set_active("mine")
    save_profiles(profiles)
    assert point_profile(URL) is None
    assert active() == ("mine", URL)


def test_another_that_was_chosen_meanwhile_stays() -> None:
    before = point_profile(URL)
    profiles = load_profiles()
    profiles.set_active("local")
    save_profiles(profiles)
    assert before is not None
    restore_profile(before)
    assert active()[0] == "local"


def test_what_a_killed_server_left_is_put_right(own_home: Path) -> None:
    office = Office(own_home)
    before = point_profile(URL)
    standing = Standing(
        pid=1, api_url=URL, own_server=True, pool="p", worker="w", started_at=datetime.now(UTC),
        profile_before=before,
    )  # fmt: skip
    with office.held():
        office.write(standing)
        assert office.is_held
        tidy_after_kill(office)
        assert office.record() == standing
        with pytest.raises(BadInputError, match=rf"runs already \(process 1, {URL}\)"), office.held():
            pytest.fail("two servers stand")
    assert active() == ("edgeloop", URL)
    assert not office.is_held
    tidy_after_kill(office)
    assert active() == ("ephemeral", None)
    assert office.record() is None


def test_one_who_stands_after_a_killed_one_stands_in_for_the_same_profile(own_home: Path) -> None:
    office = Office(own_home)
    standing = Standing(
        pid=1, api_url=URL, own_server=True, pool="p", worker="w", started_at=datetime.now(UTC),
        profile_before=point_profile(URL),
    )  # fmt: skip
    office.write(standing)
    with office.held():
        put_right(office)
        assert point_profile("http://127.0.0.1:4300/api") == "ephemeral"
