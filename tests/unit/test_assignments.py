"""Assignments, announcements and reports: what is read, and what is refused by name."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from runtime.adapters.assignment_signatures import signed, verified
from runtime.assignments import (
    MAX_ASSIGNMENT_BYTES,
    MAX_REPORT_BYTES,
    Announcement,
    Assignment,
    Counted,
    DeviceReport,
    Do,
    SignedAssignment,
    decode_announcement,
    decode_assignment,
    decode_report,
    decode_signed,
    encode,
    peek,
)
from runtime.errors import MalformedBodyError, SecurityError

DIGEST = "ab" * 32
ASSIGNMENT = Assignment(
    "pi-1", "plant", 7, Do.TRIAL, "r1", 1_700_000_000.0, path="m/2.json", entry_sha256=DIGEST
)
SIGNER = CryptoSigner.generate_ed25519()
KEYS = {SIGNER.public_key.keyid: SIGNER.public_key}
REPORT = DeviceReport(
    "pi-1", "plant", 1, 2, DIGEST, seq=7, state="trial", counted=(Counted(DIGEST, 10.0, 5),)
)


def read(payload: bytes) -> Assignment:
    return verified(payload, KEYS, device="pi-1", region="plant")


def test_what_is_signed_is_what_is_read() -> None:
    assert read(signed(ASSIGNMENT, SIGNER)) == ASSIGNMENT


def test_a_key_that_the_catalogue_does_not_name_assigns_nothing() -> None:
    with pytest.raises(SecurityError, match="does not name"):
        read(signed(ASSIGNMENT, CryptoSigner.generate_ed25519()))


@pytest.mark.parametrize("field", ["body", "signature"])
def test_what_was_changed_on_the_way_is_refused(field: str) -> None:
    message = decode_signed(signed(ASSIGNMENT, SIGNER))
    changes = {
        "body": encode(msgspec.structs.replace(ASSIGNMENT, seq=8)),
        "signature": "00" * 64,
    }

    with pytest.raises(SecurityError, match="changed"):
        read(encode(msgspec.structs.replace(message, **{field: changes[field]})))


@pytest.mark.parametrize("signature", ["", "zz", "00", "é" * 10])
def test_a_signature_that_is_none_is_refused(signature: str) -> None:
    message = decode_signed(signed(ASSIGNMENT, SIGNER))

    with pytest.raises(SecurityError):
        read(encode(msgspec.structs.replace(message, signature=signature)))


@pytest.mark.parametrize("name", ["device", "region"])
def test_what_is_for_another_device_is_refused(name: str) -> None:
    other = msgspec.structs.replace(ASSIGNMENT, **{name: "other"})

    with pytest.raises(SecurityError, match="was given to us"):
        read(signed(other, SIGNER))


def test_a_signature_of_the_bare_body_is_none_of_an_assignment() -> None:
    body = encode(ASSIGNMENT)
    bare = SIGNER.sign(body)

    with pytest.raises(SecurityError, match="changed"):
        read(encode(SignedAssignment(body, bare.keyid, bare.signature)))


def test_something_signed_that_is_no_assignment_is_malformed() -> None:
    body = b'{"device": "pi-1"}'
    signature = SIGNER.sign(b"tierwise assignment 1\n" + body)

    with pytest.raises(MalformedBodyError, match="no assignment"):
        read(encode(SignedAssignment(body, signature.keyid, signature.signature)))


@pytest.mark.parametrize("do", [Do.SHADOW, Do.TRIAL])
def test_to_install_something_it_has_to_be_named(do: Do) -> None:
    with pytest.raises(ValueError, match="names no entry"):
        Assignment("pi-1", "plant", 1, do, "r1", 0.0)


def test_to_go_back_nothing_has_to_be_named() -> None:
    back = Assignment("pi-1", "plant", 1, Do.ROLL_BACK, "r1", 0.0)

    assert decode_assignment(encode(back)) == back


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 0},
        {"seq": 2**53},
        {"device": "a/b"},
        {"device": ""},
        {"not_after_s": -1.0},
        {"entry_sha256": "XY"},
        {"format": 2},
        {"path": "x" * 300},
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, object]) -> None:
    body = msgspec.to_builtins(ASSIGNMENT) | change

    with pytest.raises(MalformedBodyError):
        decode_assignment(msgspec.json.encode(body))


def test_announcements_and_reports_come_back_as_they_were() -> None:
    announcement = Announcement("plant", ("m/2.json",), 5.0)

    assert decode_announcement(encode(announcement)) == announcement
    assert decode_report(encode(REPORT)) == REPORT


@pytest.mark.parametrize(
    ("decode", "limit"),
    [
        (decode_signed, 2 * MAX_ASSIGNMENT_BYTES),
        (peek, 2 * MAX_ASSIGNMENT_BYTES),
        (decode_announcement, MAX_REPORT_BYTES),
        (decode_report, MAX_REPORT_BYTES),
    ],
)
def test_what_is_too_large_is_refused_unread(decode: object, limit: int) -> None:
    assert callable(decode)
    with pytest.raises(MalformedBodyError, match="at most"):
        decode(b" " * (limit + 1))


@given(payload=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_of_any_kind_are_malformed_and_nothing_worse(payload: bytes) -> None:
    for decode in (decode_signed, decode_announcement, decode_report, decode_assignment, peek):
        with pytest.raises(MalformedBodyError):
            decode(payload)


def test_a_list_that_is_nested_for_ever_is_malformed() -> None:
    with pytest.raises(MalformedBodyError):
        decode_report(b"[" * MAX_REPORT_BYTES)


def test_fields_of_later_versions_are_skipped() -> None:
    later = msgspec.to_builtins(REPORT) | {"mood": "good"}

    assert decode_report(msgspec.json.encode(later)) == REPORT


def test_a_relay_reads_the_order_of_assignments_of_later_formats() -> None:
    body = msgspec.json.encode(msgspec.to_builtins(ASSIGNMENT) | {"format": 9, "do": "dance"})

    seen = peek(encode(SignedAssignment(body, "key", "signature")))

    assert (seen.seq, seen.path) == (7, "m/2.json")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"seq": 0}', b'{"seq": "7"}', b"[" * 8000])
def test_what_has_no_order_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        peek(encode(SignedAssignment(body, "key", "signature")))


SPLIT = msgspec.structs.replace(
    ASSIGNMENT, do=Do.SPLIT, share=0.1, experiment="e1", split_by="user"
)


def test_a_split_says_how_requests_are_divided() -> None:
    assert read(signed(SPLIT, SIGNER)) == SPLIT


@pytest.mark.parametrize(
    "change",
    [
        {"share": 0.0}, {"share": 1.0}, {"share": -0.1}, {"experiment": ""}, {"split_by": ""},
        {"path": ""}, {"entry_sha256": ""}, {"split_by": "x" * 65}, {"share": "some"},
    ],
)  # fmt: skip
def test_a_split_that_divides_nothing_is_refused(change: dict[str, object]) -> None:
    body = msgspec.json.decode(encode(SPLIT)) | change

    with pytest.raises(MalformedBodyError):
        decode_assignment(msgspec.json.encode(body))


def test_what_is_to_be_done_may_be_of_a_later_version_and_is_refused() -> None:
    """So does an earlier version with a split: nothing of it is done."""
    body = msgspec.json.decode(encode(SPLIT)) | {"do": "juggle"}

    with pytest.raises(MalformedBodyError, match="this is no assignment"):
        decode_assignment(msgspec.json.encode(body))


def test_what_assignments_had_before_is_written_as_before() -> None:
    """Earlier versions read them: what is as usual is left out."""
    assert not {"share", "experiment", "split_by"} & msgspec.json.decode(encode(ASSIGNMENT)).keys()
