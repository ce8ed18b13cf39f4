"""Typed TOML whose unknown keys are refused with the nearest known one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from runtime.errors import SettingsError
from runtime.settings_keys import nearest

MAX_BYTES = 4 << 20
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")
_Read = TypeVar("_Read", bound=msgspec.Struct)


def read_toml(path: Path, kind: type[_Read], parts: Iterable[type[msgspec.Struct]] = ()) -> _Read:
    """What a file holds; ``parts`` are the structs inside it, for the names of their keys.

    Raises:
        SettingsError: it cannot be read, is too large, or is not of that form.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    if len(contents) > MAX_BYTES:
        raise SettingsError(f"{path} has more than {MAX_BYTES} bytes")
    try:
        return msgspec.convert(tomllib.loads(contents.decode()), kind)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path} is nested too deeply") from error
    except msgspec.ValidationError as error:
        structs: list[type[msgspec.Struct]] = [kind, *parts]
        known = [name for one in structs for name in one.__struct_fields__]
        found = _UNKNOWN_FIELD.search(str(error))
        near = nearest(found[1], known) if found else ""
        hint = f"; did you mean {near!r}?" if near else ""
        raise SettingsError(f"{path}: {error}{hint}") from error
