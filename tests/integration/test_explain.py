"""Stories: of an answer by whoever gave it, and from the logs of all tiers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.decisions import decision, escalated, write_log, write_log_of_version_1
from fakes.gears import CHAIN, LOWER, RACE, SKIP, STRAIGHT, gear, gearbox, policy, table
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import FakeTier
from model_zoo.catalog import LABELS, bundled_model
from runtime.adapters.artifacts import read_manifest
from runtime.adapters.decision_log import FILE_NAME, SqliteDecisionLog
from runtime.adapters.explain_query import find_decisions, newest_ids, story_of
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.policy_file import read_policy
from runtime.core.story import Story
from runtime.errors import PolicyError, StartError
from runtime.exchange.explaining import parse_story
from runtime.messages import Answer, Residency, Tier
from runtime.policy import Policy, digest_of, encode_policy
from runtime.ports import AuditRecord, DecisionRecord
from tierwise.cli import main

Output = pytest.CaptureFixture[str]


async def journey(followed: Policy, **asked: Any) -> tuple[Answer, list[FakeTier]]:
    """An answer that climbed under a policy, and the tiers with their logs."""
    async with AsyncExitStack() as stack:
        tiers = _tiers(followed)
        await online(stack, *tiers)
        answer, _ = await ask(tiers[0], explain=True, **asked)
    return answer, tiers


def _tiers(followed: Policy) -> list[FakeTier]:
    broker = MemoryBroker()
    made = ((edge, Tier.EDGE), (gateway, Tier.REGIONAL), (cloud, Tier.CLOUD))
    return [make(broker, gearbox=gearbox(tier, followed)) for make, tier in made]


def write_all(folder: Path, tiers: Sequence[FakeTier]) -> list[Path]:
    return [write_log(folder / one.identity.site, *one.log.records) for one in tiers]


def save(path: Path, followed: Policy) -> Path:
    path.write_bytes(encode_policy(followed))
    return path


@pytest.mark.parametrize("followed", [CHAIN, SKIP, RACE, LOWER, STRAIGHT])
async def test_the_logs_tell_the_same_as_the_answer(tmp_path: Path, followed: Policy) -> None:
    answer, tiers = await journey(followed)
    paths = write_all(tmp_path, tiers)
    known = read_policy(save(tmp_path / "policy.json", followed))

    logged = story_of(find_decisions(paths, answer.request_id), known=known)

    said = parse_story(answer.explanation)
    assert [tier.site for tier in logged.tiers] == [tier.site for tier in said.tiers]
    assert logged.tiers[0].words == said.tiers[0].words
    assert logged.tiers[0].otherwise == said.tiers[0].otherwise
    assert logged.ending == said.ending
    assert logged.notes == ()


async def test_every_tier_of_a_climb_tells_what_it_weighed(tmp_path: Path) -> None:
    answer, tiers = await journey(CHAIN)
    known = read_policy(save(tmp_path / "policy.json", CHAIN))

    story = story_of(find_decisions(write_all(tmp_path, tiers), answer.request_id), known=known)

    assert [tier.tier for tier in story.tiers] == ["edge", "regional", "cloud"]
    assert all("(value +0.49)" in tier.words[1] for tier in story.tiers[:2])
    turn = "It would have answered itself from probability 0.800 on."
    assert [tier.otherwise for tier in story.tiers] == [(turn,), (turn,), ()]


async def test_what_the_residency_was_in_the_way_of_is_told(tmp_path: Path) -> None:
    answer, tiers = await journey(SKIP, residency=Residency.DEVICE)
    known = read_policy(save(tmp_path / "policy.json", SKIP))

    story = story_of(find_decisions(write_all(tmp_path, tiers), answer.request_id), known=known)

    (told,) = story.tiers
    assert told.otherwise == ("It would have asked the cloud if residency allowed cloud.",)
    assert parse_story(answer.explanation).tiers[0].otherwise == told.otherwise


async def test_an_answer_that_is_not_asked_to_explains_nothing() -> None:
    async with AsyncExitStack() as stack:
        tiers = _tiers(CHAIN)
        await online(stack, *tiers)

        answer, _ = await ask(tiers[0])

    assert answer.explanation == ""


DIGEST = digest_of(encode_policy(CHAIN))[:12]
VERSION_2: dict[str, Any] = {
    "policy": DIGEST,
    "gear": "g",
    "score": 0.4,
    "gain": 0.5,
    "cost": 0.1,
    "chance": 0.9,
}


def _story(tmp_path: Path, *records: DecisionRecord, request_id: str = "r1") -> Story:
    known = read_policy(save(tmp_path / "policy.json", CHAIN))
    path = write_log(tmp_path / "log", *records)
    return story_of(find_decisions([path], request_id), known=known)


def test_a_row_that_no_log_names_is_found_by_what_was_weighed(tmp_path: Path) -> None:
    """Before version 3 a log did not say what the tier itself had chosen."""
    story = _story(tmp_path, escalated(**VERSION_2, label=0))

    assert story.tiers[0].label is None
    assert [turn.at for turn in story.tiers[0].turns] == [0.8]
    assert "chose an answer with" in story.tiers[0].words[0]


def test_rows_that_say_different_things_are_not_chosen_from(tmp_path: Path) -> None:
    """Both rows weigh the same at this score, and turn at different ones."""
    rows = msgspec.structs.replace(table("edge", to=("regional",)), edges=((0.8,), (0.7,)))
    known = read_policy(save(tmp_path / "policy.json", policy(gear(rows))))
    path = write_log(tmp_path, escalated(**{**VERSION_2, "policy": known.short}))

    (told,) = story_of(find_decisions([path], "r1"), known=known).tiers

    assert (told.turns, told.penalty) == ((), None)


def test_an_own_answer_names_its_row(tmp_path: Path) -> None:
    story = _story(tmp_path, decision(**{**VERSION_2, "gain": 0.0, "cost": 0.0, "score": 0.9}))

    assert story.tiers[0].otherwise == ("It would have asked the region below probability 0.800.",)


def test_a_log_of_version_1_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_log_of_version_1(tmp_path, escalated("r1"))

    story = story_of(find_decisions([path], "r1"))

    assert story.tiers[0].words == (
        "edge (camera-1, fashion 1): chose an answer with probability 0.400.",
        "No gear was followed: its threshold decided.",
        "It was not sure enough, so it asked the region.",
        "The answer of the region came back and was taken.",
    )
    assert story.ending[2].startswith("Guarantee none: nothing is promised")
    assert story.notes == ("Note: the log of the tier regional is not among these logs.",)


def test_the_last_decision_of_a_tier_counts(tmp_path: Path) -> None:
    story = _story(
        tmp_path,
        escalated("r1", wall_s=9.0, answered_by="edge", reason="upstream_timeout"),
        escalated("r1", wall_s=5.0),
        decision("r1", tier="regional", site="gw", hop=1, answered_by="regional"),
    )

    assert (story.answered_by, len(story.tiers)) == ("regional", 2)


def test_decisions_above_an_answer_that_asked_nobody_are_apart_from_it(tmp_path: Path) -> None:
    story = _story(tmp_path, decision("r1"), decision("r1", tier="cloud", site="c", hop=2))

    assert [tier.tier for tier in story.tiers] == ["edge"]
    assert "c decided about this id too" in story.notes[0]
    assert "no policy was followed" in story.notes[1]


def test_a_residency_that_no_log_names_is_in_the_way_all_the_same(tmp_path: Path) -> None:
    """Before version 3 a log did not say how far the payload might go."""
    facts = {**VERSION_2, "gain": 0.0, "cost": 0.0, "decided_because": "residency"}

    told = _story(tmp_path, decision("r1", **facts), decision("r2", **facts, residency="moon"))

    assert told.tiers[0].otherwise == (
        "It would have asked the region if residency allowed region.",
    )
    moon = _story(tmp_path, request_id="r2")
    assert moon.tiers[0].otherwise == told.tiers[0].otherwise


def test_a_gear_without_a_table_for_a_tier_says_nothing_of_scores(tmp_path: Path) -> None:
    story = _story(tmp_path, escalated("r1", **VERSION_2, tier="cloud"))

    assert story.tiers[0].turns == ()


def test_a_story_without_its_beginning_says_so(tmp_path: Path) -> None:
    story = _story(tmp_path, decision("r1", tier="regional", hop=1, answered_by="regional"))

    assert "asked first is not among these logs" in story.notes[0]


def test_the_newest_ids_are_named_once_and_newest_first(tmp_path: Path) -> None:
    first = write_log(tmp_path / "a", *(decision(f"r{n}", wall_s=float(n)) for n in range(9)))
    second = write_log(tmp_path / "b", decision("r3", wall_s=20.0), decision("r8", wall_s=8.0))

    assert newest_ids([first, second], 3) == ("r3", "r8", "r7")


def test_a_log_without_a_decision_knows_no_request(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()

    assert find_decisions([tmp_path / FILE_NAME], "r1") == ()


def test_a_file_that_is_no_log_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"nothing of the kind" * 100)

    with pytest.raises(StartError, match="cannot read"):
        find_decisions([tmp_path / FILE_NAME], "r1")


def test_a_policy_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "none.json")


class TestCommand:
    async def _logs(self, tmp_path: Path) -> tuple[str, str]:
        _, tiers = await journey(CHAIN)
        write_all(tmp_path / "state", tiers)
        return str(tmp_path / "state"), str(save(tmp_path / "policy.json", CHAIN))

    async def test_the_story_is_told_in_words(self, tmp_path: Path, capsys: Output) -> None:
        state, policy = await self._logs(tmp_path)

        assert main(["explain", "q1", "--state", state, "--policy", policy]) == 0

        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "request q1"
        assert lines[2].startswith("edge (edge-1, animals edge-1): chose cat with")
        assert lines[3] == "  It would have answered itself from probability 0.800 on."
        assert lines[-1].startswith("Guarantee certified: ")

    async def test_json_is_the_same_as_one_object(self, tmp_path: Path, capsys: Output) -> None:
        state, policy = await self._logs(tmp_path)

        assert main(["explain", "latest", "--state", state, "--policy", policy, "--json"]) == 0

        said = json.loads(capsys.readouterr().out)
        assert said["request_id"] == "q1"
        assert [tier["turns"][0]["at"] for tier in said["tiers"][:2]] == [0.8, 0.8]

    async def test_a_policy_of_another_digest_is_named_and_not_used(
        self, tmp_path: Path, capsys: Output
    ) -> None:
        state, _ = await self._logs(tmp_path)
        other = str(save(tmp_path / "other.json", LOWER))

        assert main(["explain", "q1", "--state", state, "--policy", other]) == 0

        told = capsys.readouterr().out
        assert "It would have" not in told
        assert f"other.json is the policy {digest_of(encode_policy(LOWER))[:12]}" in told
        assert f"the request followed {DIGEST}" in told

    async def test_the_bundled_policy_is_used_where_it_was_followed(
        self, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state, policy = await self._logs(tmp_path)
        bundled = [Path(policy), save(tmp_path / "other.json", LOWER)]
        monkeypatch.setattr("model_zoo.catalog.bundled_policy", lambda: bundled.pop(0))

        told = []
        for _ in range(2):
            main(["explain", "q1", "--state", state])
            told.append(capsys.readouterr().out)

        assert "It would have answered itself from probability 0.800 on." in told[0]
        assert "It would have" not in told[1]
        assert f"the file of the policy {DIGEST}" in told[1]

    @pytest.mark.parametrize(
        ("agrees", "expected"),
        [(True, "answered the same"), (False, "answered otherwise"), (None, "nothing came back")],
    )
    def test_an_audit_of_the_answer_is_told(
        self, tmp_path: Path, capsys: Output, agrees: bool | None, expected: str
    ) -> None:
        audit = AuditRecord(1.0, "r1", "camera-1", "", "", 0.1, "", agrees)
        with SqliteDecisionLog(tmp_path / "new", gather_s=0) as log:
            log.append(decision("r1"))
            log.append(audit)
        (tmp_path / "old").mkdir()
        write_log_of_version_1(tmp_path / "old", decision("r0"))

        main(["explain", "r1", "--state", str(tmp_path)])

        assert expected in capsys.readouterr().out.splitlines()[-1]

    async def test_without_the_policy_it_says_how_to_hear_more(
        self, tmp_path: Path, capsys: Output
    ) -> None:
        state, _ = await self._logs(tmp_path)

        assert main(["explain", "q1", "--state", state]) == 0

        assert f"the file of the policy {DIGEST}" in capsys.readouterr().out

    def test_the_bundled_labels_are_named(self, tmp_path: Path, capsys: Output) -> None:
        version = read_manifest(bundled_model("edge")).version
        write_log(tmp_path, decision("r1", label=6, model_version=version))

        main(["explain", "r1", "--state", str(tmp_path)])

        assert f"chose {LABELS[6]} with probability 0.900" in capsys.readouterr().out

    def test_labels_of_other_models_are_numbers(self, tmp_path: Path, capsys: Output) -> None:
        record = decision("r1", label=6, model="plants", tier="edge")
        write_log(tmp_path, record, decision("r1", tier="orbit", model="plants", hop=3))

        main(["explain", "r1", "--state", str(tmp_path)])

        assert "chose label 6 with probability 0.900" in capsys.readouterr().out

    @pytest.mark.parametrize("request_id", ["nope", "no\x1bpe"])
    def test_an_unknown_id_says_where_was_looked_and_what_is_there(
        self, tmp_path: Path, capsys: Output, request_id: str
    ) -> None:
        paths = [write_log(tmp_path / f"{n}", decision(f"r{n}", wall_s=float(n))) for n in range(7)]

        assert main(["explain", request_id, "--state", str(tmp_path)]) == 3

        told = capsys.readouterr().err
        assert str(paths[0]) in told
        assert "and 2 more: the newest there are r6, r5, r4, r3, r2" in told
        assert "\x1b" not in told

    def test_the_latest_of_nothing_is_nothing(self, tmp_path: Path, capsys: Output) -> None:
        write_log(tmp_path)

        assert main(["explain", "latest", "--state", str(tmp_path)]) == 3

        assert "there are no decisions in them" in capsys.readouterr().err

    def test_a_folder_without_a_log_is_told(self, tmp_path: Path, capsys: Output) -> None:
        assert main(["explain", "r1", "--state", str(tmp_path)]) == 3

        assert "no decision log in" in capsys.readouterr().err
