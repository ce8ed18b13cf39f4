"""The keys of a settings type: one flat, described list; all about settings is made from it.

A settings type is a frozen msgspec Struct. A field whose type is another Struct is a section; every
other field is a key. Keys are named by their path, ``broker.port``; the environment names the same
key ``TIERWISE_BROKER__PORT``. The default of a key is the one of the *outermost* Struct that gives
one, so that a tier may start a shared section from its own values.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from msgspec import inspect

PREFIX = "TIERWISE_"
# Read by the broker launcher before there are settings; not a setting.
ALLOWED_VARIABLES = frozenset({"TIERWISE_MOSQUITTO"})


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a settings type.

    ``default`` is ``msgspec.NODEFAULT`` where a value must be given. ``example`` is a value worth
    showing. ``takes_text`` says that any text is a value, so that the environment needs no quotes.
    """

    name: str
    annotation: Any
    default: object
    description: str
    type_name: str
    constraints: str
    example: object
    is_secret: bool
    takes_text: bool
    takes_nothing: bool

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is msgspec.NODEFAULT

    @property
    def environment_name(self) -> str:
        """The environment variable that sets it."""
        return environment_name(self.name)

    @property
    def expected(self) -> str:
        """Type and constraints in words."""
        return f"{self.type_name}, {self.constraints}" if self.constraints else self.type_name


def environment_name(key: str) -> str:
    """The environment variable of a key or section."""
    return PREFIX + key.replace(".", "__").upper()


def keys(settings_type: type[msgspec.Struct]) -> tuple[Key, ...]:
    """All keys in the order of their declaration."""
    return tuple(_walk(settings_type, "", msgspec.NODEFAULT))


def sections(settings_type: type[msgspec.Struct]) -> dict[str, str]:
    """Path of each section to the first line of what it is for."""
    return dict(_walk_sections(settings_type, ""))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name most like ``word``, or nothing when none is."""
    # Upper and lower case are the same mistake.
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else ""


def as_section(annotation: object) -> type[msgspec.Struct] | None:
    """The Struct behind an annotation, or None when it is a plain value."""
    bare = _bare(inspect.type_info(annotation))
    return bare.cls if isinstance(bare, inspect.StructType) else None


def _walk(settings_type: type[msgspec.Struct], prefix: str, given: object) -> Iterator[Key]:
    for field in msgspec.structs.fields(settings_type):
        name = prefix + field.name
        default = _default(field) if given is msgspec.NODEFAULT else getattr(given, field.name)
        section = as_section(field.type)
        if section is not None:
            yield from _walk(section, f"{name}.", default)
        else:
            yield _key(name, field.type, default)


def _walk_sections(settings_type: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(settings_type):
        section = as_section(field.type)
        if section is not None:
            summary = (section.__doc__ or "").strip().partition("\n")[0]
            yield prefix + field.name, summary
            yield from _walk_sections(section, f"{prefix}{field.name}.")


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return cast("object", field.default)


def _key(name: str, annotation: object, default: object) -> Key:
    info = inspect.type_info(annotation)
    notes: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    if isinstance(info, inspect.Metadata):
        notes, extra = info.extra_json_schema or {}, info.extra or {}
    choices = _choices(_bare(info))
    examples = notes.get("examples", [])
    return Key(
        name=name,
        annotation=annotation,
        default=default,
        description=notes.get("description", ""),
        type_name=" or ".join(_type_name(choice) for choice in choices),
        constraints=extra.get("constraints", "")
        or "; ".join(filter(None, (_constraints(choice) for choice in choices))),
        example=examples[0] if examples else default,
        is_secret=bool(extra.get("secret", False)),
        takes_text=any(isinstance(choice, inspect.StrType) for choice in choices),
        takes_nothing=any(isinstance(choice, inspect.NoneType) for choice in choices),
    )


def _bare(info: inspect.Type) -> inspect.Type:
    return info.type if isinstance(info, inspect.Metadata) else info


def _choices(info: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(info, inspect.UnionType):
        return tuple(_bare(choice) for choice in info.types)
    return (info,)


_TYPE_NAMES: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.IntType: "whole number",
    inspect.FloatType: "number",
    inspect.BoolType: "true or false",
    inspect.NoneType: "empty",
}


def _type_name(info: inspect.Type) -> str:
    if isinstance(info, inspect.LiteralType):
        return "one of " + ", ".join(repr(value) for value in info.values)
    return _TYPE_NAMES.get(type(info), type(info).__name__.removesuffix("Type").lower())


def _constraints(info: inspect.Type) -> str:
    if isinstance(info, inspect.IntType | inspect.FloatType):
        bounds = (("> ", info.gt), (">= ", info.ge), ("< ", info.lt), ("<= ", info.le))
        return " and ".join(f"{sign}{bound}" for sign, bound in bounds if bound is not None)
    if isinstance(info, inspect.StrType):
        return f"matching {info.pattern}" if info.pattern else "not empty" * bool(info.min_length)
    return ""
