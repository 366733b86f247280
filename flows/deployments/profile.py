"""Prefect's active profile while a server of ours stands: `prefect deploy` finds it without a setting."""

from __future__ import annotations

from flows.deployments.standing import Office

PROFILE = "edgeloop"


def point_profile(api_url: str) -> str | None:
    """Make a profile with `api_url` the active one.

    Returns:
        the profile that was active; None if it told of that URL already, and nothing was changed.
    """
    from prefect.settings import PREFECT_API_URL, load_profiles, save_profiles

    profiles = load_profiles()
    active = profiles[profiles.active_name] if profiles.active_name in profiles.names else None
    settings = dict(active.settings) if active is not None else {}
    if settings.get(PREFECT_API_URL) == api_url:
        return None
    profiles.update_profile(PROFILE, {**settings, PREFECT_API_URL: api_url})
    profiles.set_active(PROFILE)
    save_profiles(profiles)
    return active.name if active is not None else ""


def restore_profile(before: str) -> None:
    """Make the profile `before` the active one again, unless the user has chosen another meanwhile."""
    from prefect.settings import load_profiles, save_profiles

    profiles = load_profiles()
    if profiles.active_name != PROFILE:
        return
    profiles.set_active(before if before in profiles.names else None)
    profiles.remove_profile(PROFILE)
    save_profiles(profiles)


def tidy_after_kill(office: Office) -> None:
    """Put right what a `server up` left that was killed, unless another one stands."""
    if office.record() is not None and not office.is_held:
        put_right(office)


def put_right(office: Office) -> None:
    """Undo what the record says that a `server up` did; for whoever holds the office."""
    found = office.record()
    if found is not None and found.profile_before is not None:
        restore_profile(found.profile_before)
    office.leave()
