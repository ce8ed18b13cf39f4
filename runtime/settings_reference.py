"""Writes settings down for people: a reference table, a commented TOML file, a JSON schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from runtime.settings_keys import Key, keys, sections

HIDDEN = "(hidden)"
_WIDTH = 100


class Row(NamedTuple):
    """One key as a reference shows it; texts only."""

    key: str
    environment: str
    type: str
    default: str
    constraints: str
    description: str


def describe(settings_type: type[msgspec.Struct]) -> tuple[Row, ...]:
    """All keys of a settings type with what there is to know about each."""
    return tuple(
        Row(
            key=key.name,
            environment=key.environment_name,
            type=key.type_name,
            default=_default_text(key),
            constraints=key.constraints,
            description=key.description,
        )
        for key in keys(settings_type)
    )


def json_schema(settings_type: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a settings file."""
    return msgspec.json.schema(settings_type)


def shown_values(settings: msgspec.Struct) -> dict[str, object]:
    """Keys to values, secrets replaced by ``(hidden)`` when they are set."""
    values: dict[str, object] = {}
    for key in keys(type(settings)):
        value: object = settings
        for part in key.name.split("."):
            value = getattr(value, part)
        values[key.name] = HIDDEN if key.is_secret and value else value
    return values


def example_toml(settings_type: type[msgspec.Struct]) -> str:
    """A TOML file with every key explained; keys with a default are commented out.

    So a copy of it means the same as an empty file plus the keys that must be given, and later
    changes of a default reach those who did not choose a value.
    """
    titles = sections(settings_type)
    title = (settings_type.__doc__ or "").strip().partition("\n")[0]
    lines = [
        *_comment(title),
        *_comment("Read with `--config FILE`; every key is also a variable."),
    ]
    # TOML: bare keys come before the first section.
    all_keys = keys(settings_type)
    for key in all_keys:
        if "." not in key.name:
            lines += _entry(key, key.name)
    for section, section_title in titles.items():
        lines += ["", *_comment(section_title), f"[{section}]"]
        for key in all_keys:
            path, _, last = key.name.rpartition(".")
            if path == section:
                lines += _entry(key, last)
    return "\n".join(lines) + "\n"


def _entry(key: Key, last: str) -> Iterator[str]:
    yield ""
    if key.description:
        yield from _comment(key.description)
    yield from _comment(f"{key.environment_name}: {key.expected}")
    value = key.example if key.is_required or key.default is None else key.default
    mark = "" if key.is_required else "# "
    note = "  # (not set)" if key.default is None else ""
    yield f"{mark}{last} = {toml_value(value)}{note}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=_WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _default_text(key: Key) -> str:
    if key.is_required:
        return "(required)"
    if key.default is None:
        return "(not set)"
    return toml_value(key.default)


def toml_value(value: object) -> str:
    """One value as TOML.

    Raises:
        TypeError: not a text, number or truth value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"no TOML value: {value!r}")
