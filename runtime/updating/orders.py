"""Assignments as they arrive: who has signed them, whom they are for, and what is refused.

Rules of this file:
  * every refusal has a name (``Refused``); what nobody who may assign has said changes nothing;
  * an assignment names an entry of the catalogue and its digest: both must agree.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Collection, Mapping

from securesystemslib.signer import Key

from runtime.adapters.assignment_signatures import verified
from runtime.adapters.trust_errors import Tampering
from runtime.assignments import Assignment, decode_signed
from runtime.catalogue import CatalogueEntry, encode_entry
from runtime.core.releases import Release
from runtime.core.variants import pick_variant
from runtime.errors import MalformedBodyError, ReleaseError, SecurityError
from runtime.messages import Tier


class Refused(enum.StrEnum):
    """Why an assignment is not taken; those of ``runtime.core.activation.Refusal`` as well."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    OTHER_DEVICE = "other_device"
    REPLAYED = "replayed"
    EXPIRED = "expired"
    NOT_IN_CATALOGUE = "not_in_catalogue"
    ENTRY_UNREADABLE = "entry_unreadable"
    ENTRY_MISMATCH = "entry_mismatch"
    OTHER_MODEL = "other_model"
    NO_VARIANT = "no_variant"
    NO_ROOM = "no_room"
    EDGE_ONLY = "edge_only"


def read_order(payload: bytes, keys: Mapping[str, Key], *, device: str, region: str) -> Assignment:
    """The assignment in a message, verified.

    Raises:
        ReleaseError: it is none, nobody who may assign has signed it, or it is another device's.
    """
    try:
        key_id = decode_signed(payload).key_id
        if key_id not in keys:
            raise ReleaseError(
                f"an assignment is signed with the key {key_id[:16]!r}, which the catalogue does "
                "not name for assignments",
                because=Refused.UNKNOWN_KEY,
            )
        return verified(payload, keys, device=device, region=region)
    except MalformedBodyError as error:
        raise ReleaseError(str(error), because=Refused.MALFORMED) from error
    except SecurityError as error:
        is_others = error.because == Tampering.MISMATCH
        because = Refused.OTHER_DEVICE if is_others else Refused.BAD_SIGNATURE
        raise ReleaseError(str(error), because=because) from error


def check_time(assignment: Assignment, now_s: float) -> None:
    """Refuses what is void by now.

    Raises:
        ReleaseError: it is.
    """
    if now_s >= assignment.not_after_s:
        raise ReleaseError(
            f"assignment {assignment.seq} was to begin before {assignment.not_after_s:.0f} s (Unix "
            f"time), and it is {now_s:.0f} s",
            because=Refused.EXPIRED,
        )


def chosen_release(
    assignment: Assignment,
    entry: CatalogueEntry,
    *,
    model: str,
    tier: Tier,
    hardware: Collection[str],
    engines: Mapping[str, str],
) -> Release:
    """What an assignment comes to on this device.

    Args:
        assignment: verified.
        entry: what the catalogue has at its path.
        model: the name of the model that this device runs.
        tier: of this device.
        hardware: tags of this device.
        engines: versions of what runs models here, by package name.

    Raises:
        ReleaseError: the entry is another one, for something else, or has nothing for this device.
    """
    found = hashlib.sha256(encode_entry(entry)).hexdigest()
    if found != assignment.entry_sha256:
        raise ReleaseError(
            f"{assignment.path} of the catalogue has the digest {found[:12]}, and "
            f"{assignment.entry_sha256[:12]} was assigned",
            because=Refused.ENTRY_MISMATCH,
        )
    # It may be published under its name, or under that with its tier.
    if entry.tier is not tier or entry.model not in (model, f"{model}-{tier.value}"):
        raise ReleaseError(
            f"{assignment.path} is a model of {entry.tier.value} called {entry.model}; this device "
            f"runs {model}",
            because=Refused.OTHER_MODEL,
        )
    variant = pick_variant(
        entry.variants, hardware=hardware, runtimes=engines.keys(), engines=engines
    )
    return entry.release(variant)
