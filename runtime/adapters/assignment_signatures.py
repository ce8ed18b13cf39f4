"""Signatures on assignments: Ed25519 keys that the catalogue names, one of them is enough."""

from __future__ import annotations

from collections.abc import Mapping

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature, Signer

from runtime.adapters.trust_errors import Tampering, tampered
from runtime.assignments import (
    SIGNED_PREFIX,
    Assignment,
    SignedAssignment,
    decode_assignment,
    decode_signed,
    encode,
)


def signed(assignment: Assignment, signer: Signer) -> bytes:
    """An assignment as it travels."""
    body = encode(assignment)
    signature = signer.sign(SIGNED_PREFIX + body)
    return encode(SignedAssignment(body, signature.keyid, signature.signature))


def verified(payload: bytes, keys: Mapping[str, Key], *, device: str, region: str) -> Assignment:
    """The assignment in a message, if it is for this device and signed by one of ``keys``.

    Raises:
        MalformedBodyError: it is no assignment.
        SecurityError: nobody who may assign has signed it, or it is another device's.
    """
    message = decode_signed(payload)
    key = keys.get(message.key_id)
    if key is None:
        raise tampered(
            f"an assignment is signed with the key {message.key_id[:16]!r}, which the catalogue "
            "does not name for assignments",
            Tampering.UNSIGNED,
        )
    try:
        key.verify_signature(
            Signature(message.key_id, message.signature), SIGNED_PREFIX + message.body
        )
    except (UnverifiedSignatureError, VerificationError, ValueError) as error:
        raise tampered(
            "an assignment was changed after it was signed", Tampering.UNSIGNED
        ) from error
    assignment = decode_assignment(message.body)
    if (assignment.device, assignment.region) != (device, region):
        raise tampered(
            f"an assignment for {assignment.region}/{assignment.device} was given to us",
            Tampering.MISMATCH,
        )
    return assignment
