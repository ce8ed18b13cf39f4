"""From the translations of two web frameworks to labelled short texts: python prepare.py.

The texts are the messages of `Django` 5.2.19 and `Wagtail` 8.0.1 (both BSD-3-Clause), which people
have translated into 28 languages here; pip fetches the wheels and nothing of them runs. Languages
that are close to one another are in it on purpose: Danish, Norwegian and Swedish; Czech and Slovak;
Russian, Ukrainian, Belarusian and Bulgarian; Spanish, Portuguese, Galician and Catalan.

Networks learn from the translations of some messages; those of all others are dealt by chance to
the parts that choose, certify and judge. A text that two languages share is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_zoo.idx import DataInvalidError
from model_zoo.package_files import fetch_wheel, read_members
from model_zoo.task_data import Part, Task, checked, divided, write_task
from model_zoo.text_codes import DEFAULT_LENGTH, codes_of
from runtime.errors import TierwiseError
from runtime.messages import TensorSpec

WHEELS = (
    (
        "django==5.2.19",
        "django-5.2.19-py3-none-any.whl",
        "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
    ),
    (
        "wagtail==8.0.1",
        "wagtail-8.0.1-py3-none-any.whl",
        "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c",
    ),
)
# Each language with its folders in the wheels.
LANGUAGES = {
    "Belarusian": ("be",),
    "Bulgarian": ("bg",),
    "Catalan": ("ca",),
    "Croatian": ("hr", "hr_HR"),
    "Czech": ("cs",),
    "Danish": ("da",),
    "Dutch": ("nl",),
    "Estonian": ("et",),
    "Finnish": ("fi",),
    "French": ("fr",),
    "Galician": ("gl",),
    "German": ("de",),
    "Hungarian": ("hu",),
    "Icelandic": ("is", "is_IS"),
    "Italian": ("it",),
    "Latvian": ("lv",),
    "Lithuanian": ("lt",),
    "Norwegian": ("nb",),
    "Polish": ("pl",),
    "Portuguese": ("pt", "pt_PT", "pt_BR"),
    "Romanian": ("ro",),
    "Russian": ("ru",),
    "Slovak": ("sk", "sk_SK"),
    "Slovenian": ("sl",),
    "Spanish": ("es",),
    "Swedish": ("sv",),
    "Turkish": ("tr",),
    "Ukrainian": ("uk",),
}
LABELS = tuple(LANGUAGES)
# Share of the messages that networks learn from.
LEARNED_FROM = 0.62
# Of the texts of all others: to choose on, to certify, to judge.
HELD_OUT = (0.3, 0.45, 0.25)
REDUCED_SHARE = 0.2
MIN_LETTERS = 4
_MO_MAGIC = 0x950412DE
_LOCALE = re.compile(r"locale/([A-Za-z_]+)/LC_MESSAGES/[a-z]+\.mo$")
# Placeholders, HTML and addresses are the same in all languages.
_NOT_WORDS = re.compile(r"%\(\w+\)\w|%\w|\{[^}]*\}|<[^>]*>|&\w+;|https?://\S+|[\d_%#*=/\\|]+")


class Text(NamedTuple):
    """The codes of a translation, the message that it is of, and its language."""

    message: str
    codes: npt.NDArray[np.int32]
    label: int


def messages(contents: bytes) -> Iterator[tuple[str, str]]:
    """Message and translation of every entry of a compiled catalogue (GNU gettext's `.mo`).

    Raises:
        DataInvalidError: it is none, or ends too early.
    """
    try:
        magic, _, number, first, second = struct.unpack_from("<5I", contents)
        if magic != _MO_MAGIC:
            raise DataInvalidError("not a compiled catalogue of messages")
        for at in range(number):
            pair = []
            for table in (first, second):
                length, start = struct.unpack_from("<2I", contents, table + 8 * at)
                if start + length > len(contents):
                    raise DataInvalidError("the catalogue of messages ends too early")
                pair.append(contents[start : start + length].decode())
            # A context in front, plural forms behind: the message itself is what is between.
            yield pair[0].rpartition("\4")[2].partition("\0")[0], pair[1].partition("\0")[0]
    except (struct.error, UnicodeDecodeError) as error:
        raise DataInvalidError(f"the catalogue of messages cannot be read: {error}") from error


def texts_of(catalogues: Mapping[str, bytes]) -> list[Text]:
    """All texts that only one language says, each once: equal codes are equal texts."""
    language = {code: number for number, codes in enumerate(LANGUAGES.values()) for code in codes}
    found: list[tuple[str, str, int]] = []
    for name in sorted(catalogues):
        match = _LOCALE.search(name)
        if match is None or match[1] not in language:
            continue
        for message, translation in messages(catalogues[name]):
            text = " ".join(_NOT_WORDS.sub(" ", translation).split())
            is_text = sum(character.isalpha() for character in text) >= MIN_LETTERS
            if message and translation != message and is_text:
                found.append((message, text, language[match[1]]))
    codes = codes_of([text for _, text, _ in found])
    once: dict[bytes, Text] = {}
    shared = set()
    for (message, _, label), row in zip(found, codes, strict=True):
        first = once.setdefault(row.tobytes(), Text(message, row, label))
        if first.label != label:
            shared.add(row.tobytes())
    return [text for key, text in once.items() if key not in shared]


def place_of(message: str, seed: int) -> float:
    """Where a message lies in 0 .. 1, the same for all its translations."""
    digest = hashlib.sha256(f"{seed} {message}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def parts_of(texts: list[Text], seed: int, share: float) -> dict[str, Part]:
    """Parts by name; ``share`` of the messages is used."""
    used = [text for text in texts if place_of(text.message, seed + 1) < share]
    codes = np.asarray([text.codes for text in used], np.int32).reshape(-1, DEFAULT_LENGTH)
    labels = np.asarray([text.label for text in used], np.int64)
    whole = checked(codes, labels, LABELS, "the messages")
    learned = np.asarray([place_of(text.message, seed) < LEARNED_FROM for text in used])
    train = Part(whole.inputs[learned], whole.labels[learned])
    held = Part(whole.inputs[~learned], whole.labels[~learned])
    return {"train": train} | divided(held, seed, HELD_OUT, ("calibration", "certify", "test"))


def main(arguments: list[str]) -> int:
    """Writes build/data; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheels", type=Path, help="folder with both (default: pip fetches them)")
    parser.add_argument("--file", type=Path, help="another wheel with catalogues, for a trial")
    parser.add_argument("--output", type=Path, default=Path("build/data"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reduced", action="store_true", help="a fifth of the messages")
    options = parser.parse_args(arguments)
    catalogues: dict[str, bytes] = {}
    if options.file is not None:
        catalogues = read_members(options.file, ".mo")
    else:
        folder = options.wheels or options.output.parent / "packages"
        for requirement, name, sha256 in WHEELS:
            wheel = fetch_wheel(requirement, name, sha256, folder)
            catalogues |= read_members(wheel, ".mo")
    parts = parts_of(texts_of(catalogues), options.seed, REDUCED_SHARE if options.reduced else 1.0)
    task = Task(
        name="language",
        kind="text",
        labels=LABELS,
        input=TensorSpec("codes", "INT32", (-1, DEFAULT_LENGTH)),
        data_set="translated messages of Django 5.2.19 and Wagtail 8.0.1",
        licence="BSD-3-Clause",
        seed=options.seed,
    )
    write_task(options.output, task, parts)
    for name, part in parts.items():
        print(f"{name:<12}{len(part.labels):>6} texts")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (TierwiseError, OSError) as error:
        sys.exit(f"prepare: {error}")
