import msgspec
import pytest

from runtime.errors import (
    BackendError,
    InvalidTensorError,
    TierwiseError,
    describe,
    public,
)
from runtime.messages import (
    Answer,
    Birth,
    Cancel,
    Offline,
    Outcome,
    Reason,
    Residency,
    ServedModel,
    Tier,
    decode_control,
    encode_control,
)
from runtime.ports import Message


def test_control_messages_survive_the_wire() -> None:
    for message in (
        Birth(Tier.REGIONAL, "g", "r", 7, models=(ServedModel("m", "1"),)),
        Offline(Tier.EDGE, "a", "r", 7, clean=True),
        Cancel("r1"),
    ):
        assert decode_control(encode_control(message)) == message


def test_an_unknown_field_is_skipped_and_an_unknown_kind_is_none() -> None:
    assert decode_control(b'{"kind":"cancel","request_id":"r1","new":1}') == Cancel("r1")
    assert decode_control(b'{"kind":"dance"}') is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"kind":"birth"}',
        b'{"kind":"cancel","new":' + b"[" * 100_000,
    ],
    ids=["empty", "no text", "a list", "half a birth", "deep"],
)
def test_what_is_no_control_message_is_none(payload: bytes) -> None:
    assert decode_control(payload) is None


@pytest.mark.parametrize(
    ("residency", "reachable"),
    [
        (Residency.DEVICE, {Tier.EDGE}),
        (Residency.REGION, {Tier.EDGE, Tier.REGIONAL}),
        (Residency.CLOUD, set(Tier)),
    ],
)
def test_a_residency_names_the_furthest_tier(residency: Residency, reachable: set[Tier]) -> None:
    assert {tier for tier in Tier if residency.allows(tier)} == reachable


def test_every_tier_is_of_the_kind_whose_program_serves_it() -> None:
    assert [tier.kind for tier in Tier] == [
        Tier.EDGE, Tier.REGIONAL, Tier.REGIONAL, Tier.REGIONAL, Tier.REGIONAL, Tier.CLOUD,
    ]  # fmt: skip


def test_only_answered_and_degraded_are_something_to_act_on() -> None:
    acts = {
        outcome
        for outcome in Outcome
        if Answer(request_id="r", outcome=outcome, reason=Reason.UNSURE, hops=()).has_answer
    }

    assert acts == {Outcome.ANSWERED, Outcome.DEGRADED}


def _all_errors(root: type[TierwiseError]) -> list[type[TierwiseError]]:
    return [root, *(error for child in root.__subclasses__() for error in _all_errors(child))]


def test_every_error_has_a_code_of_its_own_with_a_public_text() -> None:
    ours = [error for error in _all_errors(TierwiseError) if error.__module__ == "runtime.errors"]
    codes = [error.code for error in ours]

    assert len(set(codes)) == len(codes)
    assert all(public(code) is not public("internal") or code == "internal" for code in codes)
    assert public("made up") == public("internal")


def test_a_stranger_reads_details_only_of_faults_of_their_own() -> None:
    assert describe(InvalidTensorError("'x' must be FP32")) == "'x' must be FP32"
    assert describe(InvalidTensorError()) == "A tensor does not fit the model"
    assert describe(BackendError("/secret/path failed")) == "The model failed to run"


def test_the_first_of_repeated_properties_counts() -> None:
    message = Message("t", user=(("a", "1"), ("a", "2")))

    assert message.property("a") == "1"
    assert message.property("b", "none") == "none"


def test_messages_encode_as_readable_json() -> None:
    assert msgspec.json.decode(encode_control(Cancel("r1"))) == {
        "kind": "cancel",
        "request_id": "r1",
    }
