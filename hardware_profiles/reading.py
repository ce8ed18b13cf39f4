"""Small files of the kernel, read so that nothing they hold or lack can do harm."""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 1 << 20


def text_of(path: Path) -> str:
    """What is in a file, at most 1 MiB; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode(errors="replace").strip("\0 \t\n")
    except OSError:
        return ""


def number_of(path: Path) -> int | None:
    """The whole number that a file holds; None where there is no file, or another thing in it."""
    return whole_number(text_of(path))


def whole_number(text: str) -> int | None:
    """The number that ``text`` is in ASCII digits, perhaps with a minus before them."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None  # noqa: PLR2004


def field_of(text: str, *names: str) -> str:
    """The value of the first ``name: value`` line that has one of these names."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in names:
            return value.strip()
    return ""


def paths_in(folder: Path, pattern: str) -> list[Path]:
    """What matches in a folder, in the order of names; nothing where it cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
