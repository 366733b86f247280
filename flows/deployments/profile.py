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
    active = profiles.active_profile
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


def tidy_after_kill(office: Office) -> bool:
    """Put right what a `server up` left that was killed; True if the profile was changed."""
    found = office.record()
    if found is None or office.is_held:
        return False
    if found.profile_before is not None:
        restore_profile(found.profile_before)
    office.leave()
    return found.profile_before is not None
