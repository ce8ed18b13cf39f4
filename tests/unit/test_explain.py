"""Decisions in plain words: every reason has a sentence, and nothing that is not known is said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fakes.gears import CHAIN, choice, gear, table
from fakes.tiers import LABELS
from runtime.core import reasons
from runtime.core.explain import Explanation, Facts, explain, facts_of_hop
from runtime.core.story import Ending, Story, height, paragraphs, tell
from runtime.core.turning import Place
from runtime.messages import Guarantee, Hop, Outcome, Reason, Tier
from runtime.policy import Gear

ASKED = Facts(
    tier="edge",
    site="agent-1",
    model="fashion",
    model_version="2",
    label=1,
    probability=0.612,
    action="escalate",
    reason="unsure",
    gear="g",
    score=0.612,
    gain=0.23,
    cost=1.0,
    chance=0.97,
    route="cloud",
    end_reason="top_tier",
    came_back="cloud",
)
KEPT = Facts(tier="edge", label=1, probability=0.612, action="answer", reason="no_time")
ENDING = Ending(request_id="r1", outcome="answered", reason="confident", guarantee="none")


def of(facts: Facts, **changes: Any) -> Facts:
    return msgspec.structs.replace(facts, **changes)


def place(followed: Gear | None = None, **options: Any) -> Place:
    followed = followed or CHAIN.gears[0]
    given: dict[str, Any] = {"label": 1, "earlier": (), "score": 0.612, **options}
    return Place(followed, followed.tables[0], **given)


def test_every_reason_outcome_and_guarantee_has_a_sentence() -> None:
    assert set(reasons.DECIDED) == set(reasons.ENDED) == set(Reason)
    assert set(reasons.OUTCOMES) == set(Outcome)
    assert set(reasons.GUARANTEES) == set(Guarantee)


def test_what_was_sent_up_in_place_of_the_inputs_is_told() -> None:
    hop = Hop(Tier.EDGE, "a", "m", "1", Reason.UNSURE, escalated=True, forwarded="embedding\x1b[2J")

    sentence = "It sent its model's output 'embedding?[2J' up, not the inputs."
    assert sentence in explain(facts_of_hop(hop)).words
    assert not any("sent its model's" in text for text in explain(ASKED).words)


@pytest.mark.parametrize("action", ["answer", "escalate"])
@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_told_in_whole_sentences(reason: Reason, action: str) -> None:
    told = explain(of(KEPT, reason=reason.value, action=action, chance=0.2, remaining_ms=3.0))

    for sentence in (*told.words, *told.otherwise):
        assert sentence.endswith(".")
        assert not set(sentence) & set("{}")
    assert len(told.words) >= 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"label": None}, "edge: chose an answer by the rule r, without a model."),
        ({}, "The rule r of the policy gives the answer."),
        ({"probability": 0.4}, ("The rule r of the policy has it answer such requests itself, "
         "however sure it is.")),
        ({"action": "escalate", "route": "cloud"}, "edge: did not need its own model."),
        ({"action": "escalate", "reason": "probe"}, ("The rule r of the policy sends such requests "
         "to the region.")),
        ({"rule": ""}, "A rule of the policy decided, before any model."),
    ],
)  # fmt: skip
def test_what_a_rule_did_is_told(changes: dict[str, Any], sentence: str) -> None:
    facts = of(KEPT, **{"rule": "r", "reason": "rule", "probability": None, **changes})

    assert sentence in explain(facts).words


def test_what_would_have_undone_a_rule_is_told_as_far_as_there_is_room() -> None:
    ruled = of(KEPT, rule="r", reason="rule")

    def told(*when: str) -> tuple[str, ...]:
        return explain(of(ruled, rule_when=when)).otherwise

    assert told() == ()
    assert told("a < 1") == ("The rule would not have decided without: a < 1.",)
    assert told("a", "b") == ("The rule would not have decided without any one of: a and b.",)
    assert told(*"abcdefghij")[0].endswith("and h (and 2 more).")


def test_a_gear_that_asked_tells_what_it_weighed() -> None:
    asks_cloud = gear(table("edge", choices=[choice(2, "cloud")]), penalty=0.05)

    told = explain(ASKED, labels=LABELS, place=place(asks_cloud))

    assert told.words == (
        "edge (agent-1, fashion 2): chose dog with probability 0.612.",
        (
            "Asking the cloud was expected to win 0.23 in accuracy for 1 of cost at a price of "
            "0.05 per unit (value +0.18), chance to return in time 0.97, so it asked the cloud."
        ),
        "The answer of the cloud came back and was taken.",
    )
    assert told.otherwise == ("It would have answered itself from probability 0.800 on.",)
    assert told.value == pytest.approx(0.18)


def test_without_the_policy_the_price_is_not_known_and_nothing_is_made_up() -> None:
    told = explain(ASKED)

    assert "chose label 1" in told.words[0]
    assert "price" not in told.words[1]
    assert (told.value, told.turns, told.otherwise) == (None, (), ())


def test_a_confident_answer_tells_from_where_on_it_would_have_asked() -> None:
    facts = of(ASKED, action="answer", reason="confident", gain=0.0, cost=0.0, score=0.9, route="")

    told = explain(facts, labels=LABELS, place=place(score=0.9))

    assert "nothing to be won" in told.words[1]
    assert told.otherwise == ("It would have asked the region below probability 0.800.",)


def test_a_table_that_says_the_same_everywhere_turns_at_no_score() -> None:
    always = choice(2, "regional")
    always = msgspec.structs.replace(always, gain=((0.5, 0.5),) * 2)

    told = explain(ASKED, place=place(gear(table("edge", choices=[always]))))

    assert told.turns == ()
    assert "at no score" in told.otherwise[0]


def test_the_own_answer_is_named_beside_a_nearer_turn() -> None:
    near = msgspec.structs.replace(choice(2, "regional"), gain=((0.5, -1.0, -1.0),) * 2)
    far = msgspec.structs.replace(choice(2, "cloud"), gain=((0.4, 0.4, -1.0),) * 2)
    cost = ((0.1, 0.1, 0.1),) * 2
    both = [msgspec.structs.replace(one, cost=cost) for one in (near, far)]
    wide = msgspec.structs.replace(table("edge", choices=both), edges=((0.5, 0.9),) * 2)

    told = explain(ASKED, place=place(gear(wide), score=0.45))

    assert told.otherwise == (
        "It would have asked the cloud from probability 0.500 on.",
        "It would have answered itself from probability 0.900 on.",
    )


def test_a_threshold_tells_where_it_is() -> None:
    facts = of(ASKED, gear="", gain=None, cost=None, accept_at=0.8, route="")

    told = explain(facts)

    assert told.words[1] == "No gear was followed: its threshold of 0.8 decided."
    assert told.otherwise == ("It would have answered itself from probability 0.800 on.",)


def test_a_confident_threshold_with_nobody_above_would_have_asked_nobody() -> None:
    facts = of(KEPT, reason="confident", gear="", accept_at=0.5)

    assert explain(facts).otherwise == ()
    assert explain(of(facts, chance=0.9)).otherwise == (
        "It would have asked the region below probability 0.500.",
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reason": "no_time", "remaining_ms": 3.0, "margin_ms": 15.0}, "with 12.1 ms more."),
        ({"reason": "no_time", "remaining_ms": 3.0}, "the region with more time."),
        ({"reason": "no_upstream"}, "the region had the link been up."),
        ({"reason": "residency"}, "the region if residency allowed region."),
        ({"reason": "residency", "route": "regional,cloud"}, "if residency allowed cloud."),
        ({"reason": "unlikely_in_time", "min_chance": 0.25}, "reply in time from 0.25 on."),
        ({"reason": "unlikely_in_time"}, "the region over a better link."),
    ],
)
def test_what_was_in_the_way_is_what_would_have_had_to_differ(
    changes: dict[str, Any], expected: str
) -> None:
    (sentence,) = explain(of(KEPT, **changes)).otherwise

    assert expected in sentence


def test_the_chance_that_the_table_needs_is_told() -> None:
    dear = gear(table("edge", choices=[choice(2, "regional", gain=0.02)]))
    facts = of(KEPT, reason="unlikely_in_time", chance=0.1, min_chance=0.25)

    (sentence,) = explain(facts, place=place(dear, chance=0.1)).otherwise

    assert "from 0.50 on" in sentence


def test_what_residency_kept_from_a_gear_is_the_tier_that_it_wanted() -> None:
    skip = gear(table("edge", choices=[choice(2, "cloud")]))
    out = frozenset({"regional", "cloud"})

    told = explain(of(KEPT, reason="residency"), place=place(skip, out_of_reach=out))

    assert told.otherwise == ("It would have asked the cloud if residency allowed cloud.",)


def test_a_residency_for_a_tier_of_a_later_version_is_named_as_it_is() -> None:
    told = explain(of(KEPT, reason="residency", route="orbit"))

    assert any("orbit" in sentence for sentence in told.otherwise)


def test_an_answer_from_below_that_stands_is_weighed_too() -> None:
    facts = Facts(
        tier="regional", action="answer", reason="lower_stands", probability=0.4,
        gain=-0.01, cost=-0.5, gear="g",
    )  # fmt: skip

    told = explain(facts)

    assert "expected to lose 0.01 in accuracy and to save 0.5 of cost" in told.words[1]


def test_below_a_score_an_answer_from_below_would_have_stood() -> None:
    lower = gear(table("edge", "regional", answer="edge"))
    facts = of(KEPT, tier="regional", reason="confident", gear="g", gain=0.0, cost=0.0)

    told = explain(facts, place=place(lower, earlier=(1,), score=0.9))

    assert told.otherwise == (
        "It would have let the answer of the edge stand below probability 0.800.",
    )


def test_a_gear_without_tables_asks_at_once() -> None:
    told = explain(of(ASKED, gain=0.0, cost=0.0))

    assert told.words[1] == "Its gear asks the cloud at once, whatever the score."


def test_a_gear_without_a_table_for_the_tiers_before_it_says_so() -> None:
    told = explain(of(ASKED, gain=None, cost=None, tier="regional"))

    assert "has no table for the tiers before it" in told.words[1]


def test_a_hop_is_explained_as_far_as_it_tells() -> None:
    hop = Hop(Tier.REGIONAL, "gw", "m", "1", Reason.ROUTED, escalated=True, service_us=0)

    told = explain(facts_of_hop(hop))

    assert told.words == (
        "regional (gw, m 1): did not need its own model.",
        "It was told to pass the request on, so it asked the tier above.",
    )


def test_what_a_later_version_wrote_is_named_and_not_understood() -> None:
    facts = Facts(tier="orbit", action="escalate", reason="moonlight", end_reason="moonlight")

    told = tell(
        Ending(request_id="r", outcome="sung", reason="moonlight", guarantee="holy"),
        [explain(facts)],
    )

    text = "\n".join(paragraphs(told))
    assert "'moonlight', is not known" in text
    assert "sung" in text
    assert "'holy': not known" in text
    assert height("orbit") > height("cloud")


def test_names_from_elsewhere_cannot_drive_a_terminal() -> None:
    facts = of(KEPT, site="\x1b[2Jgone\n", tier="edge")

    told = explain(facts, labels=("a", "b\x1b"))

    assert "\x1b" not in "".join(told.words)
    assert "\n" not in "".join(told.words)


def test_words_that_came_over_the_network_cannot_either() -> None:
    story = msgspec.structs.replace(tell(ENDING, []), notes=("\x1b[2Jgone",))

    assert paragraphs(story)[-1] == "?[2Jgone"


def test_a_story_ends_with_the_outcome_and_what_the_guarantee_means() -> None:
    ending = msgspec.structs.replace(
        ENDING, answered_by="cloud", label=2, confidence=0.9, latency_ms=12.34,
        guarantee="certified",
    )  # fmt: skip

    story = tell(ending, [explain(ASKED)], labels=LABELS, notes=["Note: more."])

    assert story.ending[0] == (
        "In the end: owl, answered by the cloud, after 12.3 ms, confidence 0.900."
    )
    assert story.ending[2].startswith("Guarantee certified: all went as the gear was fitted")
    assert paragraphs(story)[-1] == "Note: more."


def test_a_story_survives_json() -> None:
    story = tell(ENDING, [explain(ASKED, place=place())])

    read = msgspec.json.decode(msgspec.json.encode(story), type=Story)

    assert read == story
    assert isinstance(read.tiers[0], Explanation)


def test_a_safer_step_is_told() -> None:
    facts = Facts(tier="edge", reason="unsure", action="escalate", gear="any.safer-2", gain=0.1)

    (one, two) = (explain(facts), explain(msgspec.structs.replace(facts, gear="any")))

    assert "any.safer-2, 2 steps safer than the gear" in " ".join(one.words)
    assert "safer" not in " ".join(two.words)
