from __future__ import annotations

import msgspec
import pytest

from fakes.releases import digest_of, release
from runtime.core.activation import (
    MAX_ATTEMPTS,
    Refusal,
    assign,
    begin_attempt,
    confirm,
    fail,
    ran_well,
    roll_back,
    set_factory,
    stage,
    stopped_cleanly,
)
from runtime.core.floors import raise_floor
from runtime.core.releases import (
    MAX_BAD,
    MAX_NUMBER,
    MAX_SLOTS,
    Fault,
    Record,
    Release,
    Slot,
    Trial,
    decode_record,
    encode_record,
)
from runtime.errors import ArtifactError, ReleaseError, StartError
from runtime.manifest import ModelFile

V1, V2, V3 = release(1), release(2), release(3)


def serving(*releases: Release) -> Record:
    """Each installed and confirmed in turn."""
    record = Record()
    for seq, one in enumerate(releases, start=1):
        record = stage(record, "a", one, seq=seq)
        record = confirm(record, "a", record.slot("a").generation)
    return record


def refusal(error: pytest.ExceptionInfo[ReleaseError]) -> str:
    return error.value.because


def test_a_release_goes_from_wanted_over_trial_to_current_and_previous() -> None:
    record = assign(serving(V1), "a", V2, seq=2)
    assert record.slot("a").wanted == V2
    record = stage(record, "a", V2, seq=2)
    assert record.slot("a").trial == Trial(2, V2)
    assert (record.slot("a").current, record.slot("a").wanted) == (V1, None)

    record = confirm(record, "a", 2)

    slot = record.slot("a")
    assert (slot.current, slot.previous, slot.trial) == (V2, V1, None)


def test_three_attempts_and_the_trial_is_bad() -> None:
    record = stage(serving(V1), "a", V2, seq=2)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        record = begin_attempt(record, "a")
        trial = record.slot("a").trial
        assert trial is not None
        assert trial.attempts == attempt

    record = begin_attempt(record, "a")

    slot = record.slot("a")
    assert (slot.trial, slot.current) == (None, V1)
    assert [(one.version, one.fault, one.seq) for one in slot.bad] == [(2, Fault.ATTEMPTS, 2)]


def test_an_attempt_needs_a_trial() -> None:
    with pytest.raises(ReleaseError, match="nothing is on trial") as error:
        begin_attempt(serving(V1), "a")

    assert refusal(error) == Refusal.STALE


def test_a_verdict_about_another_trial_changes_nothing() -> None:
    record = stage(stage(serving(V1), "a", V2, seq=2), "a", V3, seq=3)

    with pytest.raises(ReleaseError, match="trial 2 of 'a' is over") as error:
        confirm(record, "a", 2)
    with pytest.raises(ReleaseError, match="is over"):
        fail(serving(V1), "a", 1, Fault.ERRORS)

    assert refusal(error) == Refusal.STALE
    assert not record.slot("a").bad


def test_a_bad_release_is_refused_until_a_newer_assignment_clears_it() -> None:
    record = fail(stage(serving(V1), "a", V2, seq=2), "a", 2, Fault.LATENCY)
    for seq, clears in ((2, False), (2, True), (3, False)):
        with pytest.raises(ReleaseError, match=r"given up on this device \(latency\)") as error:
            stage(record, "a", V2, seq=seq, clears_bad=clears)
        assert refusal(error) == Refusal.BAD

    cleared = stage(record, "a", V2, seq=3, clears_bad=True)

    assert not cleared.slot("a").bad
    assert cleared.slot("a").trial == Trial(3, V2)


def test_old_and_repeated_numbers_are_refused_and_repetitions_are_not() -> None:
    record = assign(serving(V1), "a", V2, seq=5)

    assert assign(record, "a", V2, seq=5) == record
    for other, seq in ((V2, 4), (V3, 5), (V3, MAX_NUMBER + 1), (V3, -1)):
        with pytest.raises(ReleaseError, match=f"assignment {seq} .* is a replay") as error:
            assign(record, "a", other, seq=seq)
        assert refusal(error) == Refusal.REPLAYED


def test_what_is_on_trial_or_confirmed_is_not_staged_again() -> None:
    on_trial = stage(serving(V1), "a", V2, seq=2)

    assert stage(on_trial, "a", V2, seq=2) == on_trial
    assert stage(on_trial, "a", V2, seq=3).slot("a").trial == on_trial.slot("a").trial
    assert stage(on_trial, "a", V1, seq=4).slot("a").trial is None


def test_a_trial_goes_on_while_the_next_release_is_fetched() -> None:
    record = assign(stage(serving(V1), "a", V2, seq=2), "a", V3, seq=3)

    assert record.slot("a").trial == Trial(2, V2)
    assert record.blobs.keys() == {d for one in (V1, V2, V3) for d in one.blobs}


def test_nothing_below_the_floor_is_installed_and_the_refusal_names_it() -> None:
    record = raise_floor(serving(V2), "m", 2)

    with pytest.raises(ReleaseError, match="m version 1 is below the floor 2 of m") as error:
        assign(record, "a", V1, seq=9)

    assert refusal(error) == Refusal.BELOW_FLOOR
    assert assign(record, "a", release(1, model="other"), seq=9).slot("a").seq == 9


def test_slots_are_bounded() -> None:
    record = Record(slots={f"s{number}": Slot() for number in range(MAX_SLOTS)})

    with pytest.raises(ReleaseError, match="64 slots already") as error:
        assign(record, "one-more", V1, seq=1)

    assert refusal(error) == Refusal.TOO_MANY


def test_rolling_back_ends_the_trial_first_then_current_then_reaches_factory() -> None:
    record = set_factory(stage(serving(V1, V2), "a", V3, seq=3), "a", release(0))
    record = roll_back(record, "a", Fault.OPERATOR)
    assert (record.slot("a").trial, record.slot("a").current) == (None, V2)

    record = roll_back(record, "a", Fault.OPERATOR)
    assert (record.slot("a").current, record.slot("a").previous) == (V1, None)

    record = roll_back(record, "a", Fault.OPERATOR)
    assert record.slot("a").current is None
    assert [one.version for one in record.slot("a").bad] == [3, 2, 1]


@pytest.mark.parametrize("factory", [None, V1])
def test_without_anything_to_go_back_to_current_stays(factory: Release | None) -> None:
    record = serving(V1)
    record = set_factory(record, "a", factory) if factory else record

    with pytest.raises(ReleaseError, match="nothing to go back to") as error:
        roll_back(record, "a", Fault.ERRORS)
    with pytest.raises(ReleaseError):
        roll_back(Record(), "a", Fault.ERRORS)

    assert refusal(error) == Refusal.NO_WAY_BACK


def test_a_previous_release_that_fails_anew_is_gone_back_to_no_more() -> None:
    record = stage(serving(V1, V2), "a", V1, seq=3)

    record = fail(record, "a", record.slot("a").generation, Fault.ERRORS)

    assert (record.slot("a").current, record.slot("a").previous) == (V2, None)


def test_going_forward_to_the_previous_release_keeps_a_way_back() -> None:
    record = stage(serving(V1, V2), "a", V1, seq=3)

    record = confirm(record, "a", record.slot("a").generation)

    assert (record.slot("a").current, record.slot("a").previous) == (V1, V2)


def test_a_clean_stop_is_no_attempt() -> None:
    record = begin_attempt(stage(serving(V1), "a", V2, seq=2), "a")

    stopped = stopped_cleanly(record, "a")

    assert stopped.slot("a").trial == Trial(2, V2, 0)
    assert stopped_cleanly(stopped, "a") == stopped
    assert stopped_cleanly(Record(), "a") == Record()
    assert ran_well(Record(), "a") == Record()


def test_what_is_remembered_as_bad_is_bounded() -> None:
    record = serving(V1)
    for version in range(2, MAX_BAD + 5):
        record = stage(record, "a", release(version), seq=version)
        record = fail(record, "a", record.slot("a").generation, Fault.ERRORS)

    assert len(record.slot("a").bad) == MAX_BAD
    assert record.slot("a").bad[-1].version == MAX_BAD + 4


def test_a_record_survives_being_written_down() -> None:
    record = raise_floor(stage(serving(V1, V2), "a", V3, seq=3), "m", 1)

    contents = encode_record(record)

    assert decode_record(contents, "state.json") == record
    assert encode_record(record) == contents
    assert decode_record(encode_record(Record()), "state.json") == Record()


@pytest.mark.parametrize("cut", [0, 1, 64, 65, 66, 400])
def test_a_torn_record_is_found(cut: int) -> None:
    contents = encode_record(serving(V1, V2))

    with pytest.raises(ArtifactError, match=r"state\.json is damaged: its checksum"):
        decode_record(contents[:cut], "state.json")
    with pytest.raises(ArtifactError, match="damaged"):
        decode_record(contents[: len(contents) - 1 - cut], "state.json")


def test_a_single_bit_of_a_record_is_found() -> None:
    contents = bytearray(encode_record(serving(V1)))
    for at in range(0, len(contents), 7):
        flipped = bytes(contents[:at]) + bytes([contents[at] ^ 4]) + bytes(contents[at + 1 :])
        with pytest.raises(ArtifactError, match="damaged"):
            decode_record(flipped, "state.json")


def signed(text: bytes) -> bytes:
    line = digest_of(text.decode()).encode()
    return text + line + b"\n"


def test_a_record_of_a_later_version_is_told_from_a_damaged_one() -> None:
    with pytest.raises(StartError, match=r"later version of Tierwise \(format 2, known: 1\)"):
        decode_record(signed(b'{"format": 2, "slots": 7}\n'), "state.json")


@pytest.mark.parametrize(
    "text", [b"[]\n", b"{\n", b'{"commits": -1}\n', b'{"slots": {"../x": {}}}\n', b"null\n"]
)
def test_what_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises(ArtifactError, match="not the record of a model store"):
        decode_record(signed(text), "state.json")


HASH = digest_of("x")


@pytest.mark.parametrize(
    "files",
    [
        {"manifest.json": ModelFile(HASH, 1)},
        {"one": ModelFile(HASH, 1), "two": ModelFile(HASH, 2)},
    ],
)
def test_releases_that_contradict_themselves_are_refused(files: dict[str, ModelFile]) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json|two sizes"):
        Release(ModelFile(digest_of("m"), 1), "m", 1, files)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", ".hidden", "a/b", "a\n", ""])
def test_hostile_names_of_files_are_refused(name: str) -> None:
    raw = msgspec.to_builtins(V1)
    raw["files"] = {name: {"sha256": HASH, "size_bytes": 1}}

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw, Release)
