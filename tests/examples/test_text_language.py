"""The example of languages, from catalogues of messages to a hierarchy, with a wheel made here."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fakes.example_scripts import EXAMPLES, done, hierarchy_of, load_script, tell
from model_zoo.idx import DataInvalidError

EXAMPLE = EXAMPLES / "text-language"
PREPARE = load_script(EXAMPLE / "prepare.py")


def catalogue(pairs: list[tuple[str, str]]) -> bytes:
    """A compiled catalogue (`.mo`) of messages and translations."""
    texts = [text.encode() for pair in pairs for text in pair]
    start = 20 + 16 * len(pairs)
    places = []
    for text in texts:
        places.append(struct.pack("<2I", len(text), start))
        start += len(text) + 1
    tables = b"".join(places[0::2]) + b"".join(places[1::2])
    head = struct.pack("<5I", 0x950412DE, 0, len(pairs), 20, 20 + 8 * len(pairs))
    return head + tables + b"".join(text + b"\0" for text in texts)


def wheel_of(path: Path, num_messages: int) -> Path:
    """Catalogues of all languages, each with letters that it likes more than others do."""
    random = np.random.default_rng(5)
    with zipfile.ZipFile(path, "w") as archive:
        for codes in PREPARE.LANGUAGES.values():
            liked = random.dirichlet(np.full(26, 0.25))
            pairs = []
            for number in range(num_messages):
                letters = random.choice(list("abcdefghijklmnopqrstuvwxyz"), 14, p=liked)
                word = "".join(letters)
                pairs.append((f"message {number}", f"{word[:6]} {word[6:]} %(count)s"))
            name = f"package/locale/{codes[0]}/LC_MESSAGES/django.mo"
            archive.writestr(name, catalogue([("", "head"), *pairs]))
    return path


@pytest.mark.timeout(240)
def test_catalogues_become_a_hierarchy_that_answers(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path / "some.whl", 200)

    summary = hierarchy_of(EXAMPLE, tmp_path, "--file", wheel, max_loss=0.05, requests=100)

    assert summary["requests"] == 100
    assert summary["failed"] == 0
    assert sum(summary["answered_by"].values()) == 100
    assert summary["accuracy"]["cloud_only"] > 0.2, "28 languages: one in 28 is chance"


def test_no_message_is_asked_about_that_networks_learn_from(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path / "some.whl", 120)
    texts = PREPARE.texts_of(PREPARE.read_members(wheel, ".mo"))
    message_of = {text.codes.tobytes(): text.message for text in texts}

    parts = PREPARE.parts_of(texts, 1, 1.0)

    found = [{message_of[row.tobytes()] for row in part.inputs} for part in parts.values()]
    assert not found[0] & set.union(*found[1:])
    assert len(set.union(*found)) == 120
    assert sum(len(part.labels) for part in parts.values()) == len(texts)
    assert sum(len(part.labels) for part in PREPARE.parts_of(texts, 1, 0.2).values()) < 1000


def test_what_two_languages_share_and_what_is_not_translated_is_left_out() -> None:
    danish, norwegian = (f"a/locale/{code}/LC_MESSAGES/x.mo" for code in ("da", "nb"))
    in_danish = [("Save", "Gem nu %s"), ("No", "Nej tak"), ("Menu", "Menu"), ("X", "1 2")]
    in_norwegian = [("Save", "Lagre"), ("No", "NEJ  tak"), ("ctx\4Go\0Gos", "Dra\0Drar")]
    catalogues = {
        danish: catalogue(in_danish),
        norwegian: catalogue(in_norwegian),
        "a/locale/xx/LC_MESSAGES/x.mo": catalogue([("Save", "Unknown language")]),
    }

    texts = PREPARE.texts_of(catalogues)

    said = sorted("".join(map(chr, text.codes)).strip(" \0") for text in texts)
    assert said == ["gem nu", "lagre"]


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (b"", "cannot be read"),
        (b"\0" * 40, "not a compiled catalogue"),
        (catalogue([("One", "Eins")])[:-4], "too early"),
        (catalogue([("One", "Eins")])[:26], "cannot be read"),
        (struct.pack("<5I", 0x950412DE, 0, 2**31, 20, 28), "cannot be read"),
        (catalogue([("One", "x")]).replace(b"x", b"\xff"), "cannot be read"),
    ],
    ids=["empty", "zeros", "truncated", "no tables", "huge number", "no utf-8"],
)
def test_what_is_no_catalogue_is_refused(contents: bytes, says: str) -> None:
    with pytest.raises(DataInvalidError, match=says):
        list(PREPARE.messages(contents))


@pytest.mark.parametrize("contents", [b"no zip", None], ids=["damaged", "without catalogues"])
def test_a_wheel_without_catalogues_is_refused(tmp_path: Path, contents: bytes | None) -> None:
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    if contents is not None:
        wheel.write_bytes(contents)

    ran = tell(tmp_path, EXAMPLE / "prepare.py", "--file", wheel)

    assert ran.returncode == 1
    assert str(wheel) in ran.stderr
    assert "Traceback" not in ran.stderr


def test_too_few_messages_are_refused(tmp_path: Path) -> None:
    ran = tell(tmp_path, EXAMPLE / "prepare.py", "--file", wheel_of(tmp_path / "a.whl", 5))

    assert ran.returncode == 1
    assert "every class needs" in ran.stderr


def test_training_without_data_says_what_to_run_first(tmp_path: Path) -> None:
    ran = tell(tmp_path, EXAMPLE / "train.py")

    assert ran.returncode == 1
    assert "run prepare.py first" in ran.stderr


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_the_real_messages_reduced(tmp_path: Path) -> None:
    summary = hierarchy_of(EXAMPLE, tmp_path, max_loss=0.05, requests=200)

    assert summary["failed"] == 0
    assert summary["accuracy"]["cloud_only"] > 0.5
    assert summary["accuracy"]["cloud_only"] > summary["accuracy"]["edge_only"]


def test_the_figures_of_a_run_need_what_was_built(tmp_path: Path) -> None:
    ran = tell(tmp_path, EXAMPLE / "run.py", "--build", tmp_path / "nothing")

    assert ran.returncode == 3
    assert "a model folder was expected there" in ran.stderr
    assert done(tmp_path, EXAMPLE / "run.py", "--help").startswith("usage: python run.py")
