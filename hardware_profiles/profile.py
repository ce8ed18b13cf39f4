"""What a hardware profile says, and how its TOML is read.

Rules of this file:
  * every figure names its source; what has none is left out of a profile, never guessed;
  * unknown keys are refused with the nearest known one, and so are NaN, infinity and negatives;
  * no IO: ``hardware_profiles.registry`` reads files.
"""

from __future__ import annotations

import math
import re
import tomllib
from typing import Annotated, Literal

import msgspec

from runtime.catalogue import Tag
from runtime.errors import SettingsError
from runtime.settings_keys import nearest

Kind = Literal["board", "module", "accelerator", "mini-pc", "gateway", "cloud", "generic"]
Machine = Literal["aarch64", "armv7l", "x86_64"]
Feature = Literal["neon", "dotprod", "i8mm", "avx2", "vnni", "avx512"]
Text = Annotated[str, msgspec.Meta(min_length=1)]
UsbId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}\Z")]

_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a figure is from; ``read``: the document itself was read for this profile."""

    title: Text
    dated: Text
    read: bool
    url: str = ""


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number; ``source`` is a key of the profile's ``sources``."""

    value: Annotated[float, msgspec.Meta(gt=0)]
    source: Text
    note: str = ""

    def __post_init__(self) -> None:
        """Refuses infinity; NaN is not above 0.

        Raises:
            ValueError: the value is not finite.
        """
        if not math.isfinite(self.value):
            raise ValueError("a figure must be finite")


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of a device in numbers.

    ``memory_bytes_s`` is what one thread copies with memcpy. ``core_flops`` and ``cpu_flops`` are
    fp32 operations per second of one core and of all of them, a multiply-add counted as two.
    ``active_w`` is typical use, ``max_w`` all cores or the accelerator at work, ``tdp_w`` what the
    maker gives for the processor alone. From ``throttle_c`` on clocks are lowered.
    """

    cores: Figure | None = None
    clock_mhz: Figure | None = None
    memory_bytes: Figure | None = None
    memory_bytes_s: Figure | None = None
    core_flops: Figure | None = None
    cpu_flops: Figure | None = None
    accelerator_flops: Figure | None = None
    accelerator_int8_ops: Figure | None = None
    accelerator_bytes_s: Figure | None = None
    accelerator_memory_bytes: Figure | None = None
    idle_w: Figure | None = None
    active_w: Figure | None = None
    max_w: Figure | None = None
    tdp_w: Figure | None = None
    throttle_c: Figure | None = None


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a host shows when it is such a device: regular expressions, and USB ids.

    ``board`` is found in the model of the device tree, ``cpu`` in the processor's name, ``nvidia``
    in the name of a GPU; all that are given have to be found, and any one of ``usb``.
    """

    board: str = ""
    cpu: str = ""
    nvidia: str = ""
    usb: tuple[UsbId, ...] = ()

    def __post_init__(self) -> None:
        """Refuses an expression that cannot be used.

        Raises:
            ValueError: says which and why.
        """
        for name in ("board", "cpu", "nvidia"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ValueError(f"match.{name} is no regular expression: {error}") from error


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of device.

    ``providers`` (of ONNX Runtime) and ``delegates`` (of TFLite) are in the order to wish for;
    ``threads`` is for one inference. ``hardware`` are tags beside those that ``tags_of`` makes.
    """

    name: Tag
    title: Text
    kind: Kind
    machines: tuple[Machine, ...]
    note: str = ""
    features: tuple[Feature, ...] = ()
    accelerators: tuple[Tag, ...] = ()
    hardware: tuple[Tag, ...] = ()
    runtimes: tuple[Tag, ...] = ()
    providers: tuple[Text, ...] = ()
    delegates: tuple[Text, ...] = ()
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    match: Match | None = None
    figures: Figures = Figures()
    sources: dict[str, Source] = {}

    def __post_init__(self) -> None:
        """Refuses what no single field shows to be wrong.

        Raises:
            ValueError: a figure's source is not listed, or a source is of no figure.
        """
        used = {figure.source for figure in self.known().values()}
        for missing in sorted(used - self.sources.keys()):
            raise ValueError(f"the source {missing!r} of a figure is not in `sources`")
        for idle in sorted(self.sources.keys() - used):
            raise ValueError(f"no figure is from the source {idle!r}")

    def known(self) -> dict[str, Figure]:
        """The figures that there are, by name, in the order of ``Figures``."""
        named = {name: getattr(self.figures, name) for name in Figures.__struct_fields__}
        return {name: figure for name, figure in named.items() if figure is not None}

    def value(self, name: str) -> float | None:
        """One figure's value; None where it is not known."""
        figure = self.known().get(name)
        return figure.value if figure else None


def tags_of(profile: Profile, machine: str = "") -> frozenset[str]:
    """What ``runtime.catalogue.Requirements.hardware`` may ask of such a device.

    Its name, its own tags, its features and accelerators, and the machine: the one given, or the
    first one of the profile, which is the usual one.
    """
    machines = (machine,) if machine else profile.machines[:1]
    return frozenset(
        (profile.name, *profile.hardware, *profile.features, *profile.accelerators, *machines)
    )


def decode_profile(contents: bytes, source: str) -> Profile:
    """The profile in ``contents``; ``source`` names it in errors.

    Raises:
        SettingsError: no TOML, or not a profile; the text says which key, and the nearest one.
    """
    try:
        return msgspec.convert(tomllib.loads(contents.decode()), Profile)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{source} is no TOML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{source} is no hardware profile: nested too deeply") from error
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source} is no hardware profile: {_told(str(error))}") from error


def _told(text: str) -> str:
    found = _UNKNOWN_FIELD.search(text)
    known = [
        name
        for kind in (Profile, Match, Figures, Figure, Source)
        for name in kind.__struct_fields__
    ]
    near = nearest(found[1], known) if found else ""
    return f"{text}; did you mean {near!r}?" if near else text
