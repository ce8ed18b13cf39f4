"""Which build of a version a device takes: the most special one that runs on it.

Rules of this file:
  * a variant fits if the device has all tags that it asks for, and engines that are new enough;
  * of those that fit, the one that asks for the most wins; then the smaller one, then the name, so
    that two devices of the same kind take the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from runtime.catalogue import Requirements, Variant
from runtime.errors import ReleaseError

NO_VARIANT = "no_variant"


def pick_variant(
    variants: Mapping[str, Variant],
    *,
    hardware: Collection[str],
    runtimes: Collection[str],
    engines: Mapping[str, str],
) -> str:
    """The name of the variant to install.

    Args:
        variants: of the entry, by name.
        hardware: tags of the device.
        runtimes: tags of what can run models there.
        engines: installed versions by package name.

    Raises:
        ReleaseError: none of them runs here; the text says what each of them lacks.
    """
    lacks = {
        name: missing(one.requirements, hardware, runtimes, engines)
        for name, one in variants.items()
    }
    fitting = [name for name, lack in lacks.items() if not lack]
    if not fitting:
        told = "; ".join(f"{name} needs {', '.join(lack)}" for name, lack in sorted(lacks.items()))
        raise ReleaseError(f"no variant runs on this device: {told}", because=NO_VARIANT)

    return min(
        fitting, key=lambda name: rank(name, variants[name].requirements, variants[name].size_bytes)
    )


def rank(name: str, asks: Requirements, size_bytes: int) -> tuple[int, int, str]:
    """Sorts variants that run: the one that asks for the most, then the smaller, then the name."""
    return -len(asks.hardware) - len(asks.runtime), size_bytes, name


def missing(
    asks: Requirements,
    hardware: Collection[str],
    runtimes: Collection[str],
    engines: Mapping[str, str],
) -> tuple[str, ...]:
    """What a device lacks of the requirements, in words; nothing where it fits."""
    tags = [tag for tag in asks.hardware if tag not in hardware]
    tags += [tag for tag in asks.runtime if tag not in runtimes]
    old = [
        f"{engine} {oldest} (here: {engines.get(engine, 'none')})"
        for engine, oldest in asks.min_runtime.items()
        if engine not in engines or version_numbers(engines[engine]) < version_numbers(oldest)
    ]
    return (*tags, *old)


def version_numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version without zeros at their end; enough to compare releases."""
    numbers: list[int] = []
    for part in text.split("."):
        if not (part.isascii() and part.isdigit()):
            break
        numbers.append(int(part))
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
