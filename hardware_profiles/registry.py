"""Finds hardware profiles: those that come with Tierwise, and files of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hardware_profiles.profile import Profile, decode_profile
from runtime.errors import SettingsError
from runtime.settings_keys import nearest

FOLDER = Path(__file__).parent / "profiles"
MAX_PROFILE_BYTES = 64 * 1024


def load_profiles(folder: Path = FOLDER) -> dict[str, Profile]:
    """All profiles of a folder by name, in the order of their names.

    Raises:
        SettingsError: a file cannot be read, is no profile, or is called otherwise than it says.
    """
    found = {}
    for path in sorted(folder.glob("*.toml")):
        profile = read_profile(path)
        if profile.name != path.stem:
            raise SettingsError(
                f"{path} holds the profile {profile.name!r}: call the file {profile.name}.toml"
            )
        found[profile.name] = profile
    return found


def read_profile(path: Path) -> Profile:
    """The profile in one file.

    Raises:
        SettingsError: it cannot be read, is too large, or is no profile.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_PROFILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    if len(contents) > MAX_PROFILE_BYTES:
        raise SettingsError(f"{path} has more than {MAX_PROFILE_BYTES} bytes: no hardware profile")
    return decode_profile(contents, str(path))


def profile_named(name: str, profiles: Mapping[str, Profile]) -> Profile:
    """One of the profiles, or the one in the file that ``name`` ends in ``.toml`` for.

    Raises:
        SettingsError: there is none; the text has the nearest name, or all of them.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    if name in profiles:
        return profiles[name]
    near = nearest(name, profiles)
    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(profiles)}"
    raise SettingsError(f"unknown hardware profile {name!r}: {hint}")
