from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.update_paths import is_document_path, is_immutable, is_root, named_digest

DIGEST = "0f" * 32


@pytest.mark.parametrize(
    "path",
    [
        "metadata/timestamp.json",
        "metadata/12.root.json",
        "metadata/3.region-eu.json",
        f"targets/{DIGEST}.manifest.json",
        f"targets/fashion/7/{DIGEST}.manifest.json",
    ],
)
def test_what_is_published_has_a_path(path: str) -> None:
    assert is_document_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "metadata",
        "metadata/",
        "metadata/a/b.json",
        "metadata/root.txt",
        "metadata/.json",
        "metadata/../secret.json",
        "metadata/%2e%2e.json",
        "metadata/a.json\n",
        "targets/",
        "targets//a",
        "targets/../a",
        "targets/a/../b",
        "targets/.hidden",
        "targets/a/",
        "targets/a\\b",
        "targets/a%2fb",
        "targets/a\0",
        "targets/ä",
        "blobs/" + DIGEST,
        "/targets/a",
        "targets/" + "a" * 200,
        "targets/" + "a/" * 20 + "a",
    ],
)
def test_what_could_lead_elsewhere_has_none(path: str) -> None:
    assert not is_document_path(path)


@given(st.text(alphabet="ab./\\%~\0\n-_", max_size=30))
def test_no_path_leads_out_of_its_folder(rest: str) -> None:
    path = "targets/" + rest

    if is_document_path(path):
        assert posixpath.normpath(path) == path
        assert not any(part.startswith(".") for part in path.split("/"))


def test_versions_and_digests_never_change() -> None:
    assert is_immutable("metadata/3.snapshot.json")
    assert is_immutable(f"targets/a/{DIGEST}.m.json")
    assert not is_immutable("metadata/timestamp.json")
    assert not is_immutable("targets/a/m.json")


def test_a_target_promises_the_digest_in_its_name() -> None:
    assert named_digest(f"targets/a/{DIGEST}.m.json") == DIGEST
    assert named_digest(f"targets/{DIGEST}") == ""
    assert named_digest("metadata/1.root.json") == ""


def test_roots_are_told_from_other_metadata() -> None:
    assert is_root("metadata/2.root.json")
    assert not is_root("metadata/root.json")
    assert not is_root("metadata/2.targets.json")
