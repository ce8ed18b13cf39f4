"""Reads settings: defaults, then one TOML file, then the environment, then flags.

Rules of this file:
  * A later source wins key by key, never section by section.
  * Nothing is guessed: an unknown key, a wrong type or a value out of range is a ``SettingsError``
    that names the source, the key, the value and what is expected. All problems are told at once,
    a line each.
  * A value that must stay secret is never part of a message.
  * Nothing here reads the process's environment by itself; it is passed in, once, by ``app.py``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar, cast

import msgspec

from runtime.errors import SettingsError
from runtime.settings_keys import (
    ALLOWED_VARIABLES,
    PREFIX,
    Key,
    environment_name,
    keys,
    nearest,
    sections,
)

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


class Origin(NamedTuple):
    """Where a value came from; ``name`` is the file, the variable or the flag."""

    source: Literal["default", "file", "environment", "flag"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.source} {self.name}".strip()


class Loaded(NamedTuple, Generic[SettingsT]):
    """Settings, and the origin of each key."""

    settings: SettingsT
    origins: Mapping[str, Origin]


class _Given(NamedTuple):
    """A value as a source gave it; ``is_text`` where a source has nothing but text."""

    key: str
    value: object
    origin: Origin
    is_text: bool


def load(
    settings_type: type[SettingsT],
    *,
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, object] | Sequence[str],
) -> Loaded[SettingsT]:
    """Settings from all sources, with the origin of every key.

    Args:
        settings_type: A frozen Struct; sections are Structs of their own.
        file: A TOML file, or None for none.
        environment: Variables; those that start with ``TIERWISE_`` are read, others are not ours.
        flags: Keys to values, or ``section.key=value`` texts as a command line has them.

    Raises:
        SettingsError: anything unknown, of the wrong type, out of range or missing; a line each.
    """
    known = {key.name: key for key in keys(settings_type)}
    reader = _Reader(known, sections(settings_type))
    given: list[_Given] = []
    if file is not None:
        given += reader.from_file(file)
    given += reader.from_environment(environment)
    given += reader.from_flags(flags)

    values: dict[str, object] = {}
    origins: dict[str, Origin] = dict.fromkeys(known, Origin("default"))
    for one in given:
        values[one.key] = reader.convert(known[one.key], one)
        origins[one.key] = one.origin
    for name, key in known.items():
        if name not in values:
            values[name] = key.default
            if key.is_required:
                reader.problems.append(
                    f"missing setting {name!r}: set it in a file, as {key.environment_name}, "
                    f"or with --set {name}=..."
                )
    if reader.problems:
        raise SettingsError("\n".join(reader.problems))
    return Loaded(_build(settings_type, values), origins)


def _build(settings_type: type[SettingsT], values: Mapping[str, object]) -> SettingsT:
    tree: dict[str, object] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = cast("dict[str, object]", branch.setdefault(part, {}))
        branch[last] = value
    try:
        return msgspec.convert(tree, settings_type)
    except msgspec.ValidationError as error:
        # Only rules between keys are left to fail here; msgspec ends its text with the path.
        text, _, place = str(error).partition(" - at `$")
        where = place.strip("`.")
        raise SettingsError(f"{where}: {text}" if where else text) from error


class _Reader:
    """Turns each source into known keys with values, and collects what is wrong."""

    def __init__(self, known: Mapping[str, Key], section_names: Mapping[str, str]) -> None:
        self._known = known
        self._sections = section_names
        self.problems: list[str] = []

    def from_file(self, file: Path) -> Iterator[_Given]:
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{file} is no UTF-8 text: {error.reason}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{file} is no TOML: {error}") from error
        return self._from_table(tree, "", Origin("file", str(file)))

    def _from_table(
        self, table: Mapping[str, object], prefix: str, origin: Origin
    ) -> Iterator[_Given]:
        for part, value in table.items():
            name = prefix + part
            # A quoted key with a dot in it is not a path.
            if name in self._known and "." not in part:
                yield _Given(name, value, origin, is_text=False)
            elif name not in self._sections or "." in part:
                self._unknown(name, origin.name)
            elif isinstance(value, Mapping):
                yield from self._from_table(value, f"{name}.", origin)
            else:
                self.problems.append(
                    f"{name!r} in {origin.name} is a section: write [{name}] and its keys below"
                )

    def from_environment(self, environment: Mapping[str, str]) -> Iterator[_Given]:
        by_variable = {key.environment_name: name for name, key in self._known.items()}
        section_variables = {environment_name(name): name for name in self._sections}
        for variable in sorted(environment):
            if not variable.startswith(PREFIX) or variable in ALLOWED_VARIABLES:
                continue
            if variable in by_variable:
                origin = Origin("environment", variable)
                yield _Given(by_variable[variable], environment[variable], origin, is_text=True)
            elif variable in section_variables:
                self.problems.append(
                    f"{variable} names a section: set its keys one by one, as {variable}__<KEY>"
                )
            else:
                hint = _hint(variable, [*by_variable, *ALLOWED_VARIABLES])
                self.problems.append(f"unknown setting {variable!r} in the environment: {hint}")

    def from_flags(self, flags: Mapping[str, object] | Sequence[str]) -> Iterator[_Given]:
        origin = Origin("flag", "--set")
        is_text = not isinstance(flags, Mapping)
        for name, value in self._pairs(flags):
            if name in self._known:
                yield _Given(name, value, origin, is_text=is_text)
            else:
                self._unknown(name, origin.name)

    def _pairs(self, flags: Mapping[str, object] | Sequence[str]) -> Iterator[tuple[str, object]]:
        if isinstance(flags, Mapping):
            yield from flags.items()
            return
        for flag in flags:
            name, equals, text = flag.partition("=")
            if equals:
                yield name.strip(), text
            else:
                self.problems.append(f"--set {flag!r}: write section.key=value")

    def convert(self, key: Key, given: _Given) -> object:
        """The typed value, or the value unchanged with its problem noted."""
        value = given.value
        if given.is_text:
            value = _parse_text(key, cast("str", value))
        if value == "" and key.takes_nothing and not key.takes_text:
            value = None
        try:
            converted: object = msgspec.convert(value, key.annotation)
        except msgspec.ValidationError:
            return self._refuse(key, given, value)
        if isinstance(converted, float) and not math.isfinite(converted):
            return self._refuse(key, given, value)
        return converted

    def _refuse(self, key: Key, given: _Given, value: object) -> object:
        shown = "the value given" if key.is_secret else repr(value)
        where = given.origin.name
        if given.origin.source != "environment":
            where = f"{key.name!r} in {where}"
        self.problems.append(f"{where} is {shown}: expected {key.expected}")
        return value

    def _unknown(self, name: str, where: str) -> None:
        hint = _hint(name, [*self._known, *self._sections])
        if name in self._sections:
            hint = f"it is a section, with keys such as {self._first_key(name)!r}"
        self.problems.append(f"unknown setting {name!r} in {where}: {hint}")

    def _first_key(self, section: str) -> str:
        return next(name for name in self._known if name.startswith(f"{section}."))


def _hint(name: str, candidates: Sequence[str]) -> str:
    found = nearest(name, candidates)
    if found:
        return f"did you mean {found!r}?"
    return "no setting has a name like it; `tierwise config schema` lists all"


def _parse_text(key: Key, text: str) -> object:
    """A TOML value, or the text itself where it is none.

    Where any text is a value (a password ``1234``, a path), only quotes are read as TOML.
    """
    if key.takes_text and not text.startswith(('"', "'")):
        return text
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More than one key: the text had a line break in it, so it is no value.
    return parsed["value"] if len(parsed) == 1 else text
