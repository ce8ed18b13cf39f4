"""What a device is to run, said by whoever rolls models out, and what the device says of it.

Two statements with two keys are needed before anything is activated: the catalogue says that a
version is legitimate, an assignment says that this device should run it now. Whoever has only the
key of assignments can choose among what the catalogue has signed, above the floors, and no more.

    cloud --- SignedAssignment, retained, relayed as it is ---> device
    cloud <-- DeviceReport, through the outboxes of all tiers -- device

Types only grow: new fields have defaults, unknown ones are skipped.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeVar

import msgspec

from runtime.errors import MalformedBodyError

T = TypeVar("T")
FORMAT = 1
MAX_ASSIGNMENT_BYTES = 8192
MAX_REPORT_BYTES = 16_384
# Numbers up to here are the same in every JSON reader.
_MAX_NUMBER = 2**53 - 1

_Site = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{64})?\Z")]
_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_NUMBER)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Do(enum.StrEnum):
    """What a device is told to do.

    ``shadow``: install it and run it beside what serves, without answering. ``trial``: install it
    and let it answer on probation. ``split``: install it and let it answer a share of the requests,
    beside what serves. ``withdraw``: forget what was assigned, if it does not serve yet; a split
    ends. ``roll_back``: go back to what served before.
    """

    SHADOW = "shadow"
    TRIAL = "trial"
    SPLIT = "split"
    WITHDRAW = "withdraw"
    ROLL_BACK = "roll_back"


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one device is to do.

    ``seq`` grows with every assignment to the device, whoever makes it: one at or below the last is
    a repetition or a replay. ``path`` is the entry in the catalogue, ``entry_sha256`` the digest of
    ``runtime.catalogue.encode_entry`` of it. ``to`` is, for ``roll_back``, the manifest's digest of
    the release that it had before; empty: whatever that was. Nothing begins after ``not_after_s``
    (Unix seconds). ``clears_bad``: to be tried again although it was given up here. For ``split``,
    the new release answers the ``share`` of requests whose context key ``split_by`` has a value
    that falls into it, hashed with ``experiment``.
    """

    device: _Site
    region: _Site
    seq: Annotated[int, msgspec.Meta(ge=1, le=_MAX_NUMBER)]
    do: Do
    rollout: _Text
    not_after_s: _Seconds
    path: _Text = ""
    entry_sha256: _Sha256 = ""
    to: _Sha256 = ""
    clears_bad: bool = False
    share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    experiment: _Text = ""
    split_by: Annotated[str, msgspec.Meta(max_length=64)] = ""
    format: Annotated[int, msgspec.Meta(ge=1, le=FORMAT)] = FORMAT

    def __post_init__(self) -> None:
        """Refuses what cannot be done.

        Raises:
            ValueError: nothing is named that could be installed, or split.
        """
        if self.do in (Do.SHADOW, Do.TRIAL, Do.SPLIT) and not (self.path and self.entry_sha256):
            raise ValueError(f"{self.do} names no entry of the catalogue")
        if self.do is Do.SPLIT and not (self.share and self.experiment and self.split_by):
            raise ValueError("split names no share of requests, no experiment, or no key")


class SignedAssignment(msgspec.Struct, frozen=True, tag="assignment", tag_field="kind"):
    """``body`` is the JSON of an ``Assignment``, byte for byte as it was signed.

    ``signature`` is over ``SIGNED_PREFIX + body``, in hexadecimal; ``key_id`` as in the catalogue.
    """

    body: Annotated[bytes, msgspec.Meta(max_length=MAX_ASSIGNMENT_BYTES)]
    key_id: Annotated[str, msgspec.Meta(max_length=128)]
    signature: Annotated[str, msgspec.Meta(max_length=256)]


# So that no signature of another kind of statement can be taken for one of these.
SIGNED_PREFIX = b"tierwise assignment 1\n"


class Announcement(msgspec.Struct, frozen=True, tag="announcement", tag_field="kind"):
    """Retained, to gateways of a region: these entries will be asked for from ``from_s`` on.

    It is a hint and not signed: a gateway fetches what the catalogue has signed, and nothing else.
    """

    region: _Site
    paths: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=64)]
    from_s: _Seconds = 0.0


class Counted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one release did on a device over ``over_s`` seconds, which ended with the report.

    ``release`` is the digest of its manifest; empty: these are requests that were in no arm of a
    split, whichever of the two has answered them. ``invalid`` outputs, ``errors``, ``escalated``
    and ``slow`` requests are parts of ``requests``; ``disagreed`` of the ``shadowed`` requests,
    which two releases have seen; ``audited_wrong`` of the ``audited`` ones, where the cloud says
    another label.
    """

    release: _Sha256
    over_s: _Seconds
    requests: _Count = 0
    invalid: _Count = 0
    errors: _Count = 0
    escalated: _Count = 0
    slow: _Count = 0
    shadowed: _Count = 0
    disagreed: _Count = 0
    audited: _Count = 0
    audited_wrong: _Count = 0


class DeviceReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device's sign of life and how its assignment stands; a state is repeated until it changes.

    ``serving`` is the digest of the manifest of what answers, ``model`` its name, above the edge
    with its tier (``fashion-regional``). ``seq`` is the highest assignment that was heard, and
    ``state`` (``runtime.core.rollout_states.Execution``), ``reason`` and ``fault`` (``HardFault``)
    are about it. ``epoch`` and ``number`` order the reports of a device.
    """

    device: _Site
    region: _Site
    epoch: _Count
    number: _Count
    serving: _Sha256
    model: _Text = ""
    version: _Text = ""
    hardware: _Text = ""
    seq: _Count = 0
    state: _Text = ""
    reason: _Text = ""
    fault: _Text = ""
    counted: Annotated[tuple[Counted, ...], msgspec.Meta(max_length=8)] = ()


class Peek(msgspec.Struct, frozen=True):
    """What relays read in an assignment that nobody has verified: which is newer, what to keep."""

    seq: Annotated[int, msgspec.Meta(ge=1, le=_MAX_NUMBER)]
    path: _Text = ""


_ASSIGNMENT = msgspec.json.Decoder(Assignment)
_SIGNED = msgspec.json.Decoder(SignedAssignment)
_ANNOUNCEMENT = msgspec.json.Decoder(Announcement)
_REPORT = msgspec.json.Decoder(DeviceReport)
_PEEK = msgspec.json.Decoder(Peek)
_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(
    value: Assignment | SignedAssignment | Announcement | DeviceReport,
) -> bytes:
    """JSON, the same bytes for the same value."""
    return msgspec.json.encode(value, order="deterministic")


def decode_signed(payload: bytes) -> SignedAssignment:
    """An assignment that nobody has verified yet.

    Raises:
        MalformedBodyError: it is none, or too large.
    """
    # Base64 takes a third more.
    return _decoded(_SIGNED, payload, "signed assignment", 2 * MAX_ASSIGNMENT_BYTES)


def peek(payload: bytes) -> Peek:
    """What a relay needs to know of an assignment, of whatever format.

    Raises:
        MalformedBodyError: it is no signed assignment, or too large.
    """
    return _decoded(_PEEK, decode_signed(payload).body, "assignment", MAX_ASSIGNMENT_BYTES)


def decode_assignment(body: bytes) -> Assignment:
    """The assignment in a body whose signature was verified.

    Raises:
        MalformedBodyError: it is none, or of a later format.
    """
    return _decoded(_ASSIGNMENT, body, "assignment", MAX_ASSIGNMENT_BYTES)


def decode_announcement(payload: bytes) -> Announcement:
    """An announcement.

    Raises:
        MalformedBodyError: it is none, or too large.
    """
    return _decoded(_ANNOUNCEMENT, payload, "announcement", MAX_REPORT_BYTES)


def decode_report(payload: bytes) -> DeviceReport:
    """A device's report.

    Raises:
        MalformedBodyError: it is none, or too large.
    """
    return _decoded(_REPORT, payload, "report of a device", MAX_REPORT_BYTES)


def _decoded(decoder: msgspec.json.Decoder[T], payload: bytes, what: str, limit: int) -> T:
    if len(payload) > limit:
        raise MalformedBodyError(
            f"{len(payload)} bytes are too many for a {what}: at most {limit} are read"
        )
    try:
        return decoder.decode(payload)
    except _BAD_JSON as error:
        raise MalformedBodyError(f"this is no {what}: {error}") from error
