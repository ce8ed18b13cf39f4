"""Rules of a policy: what is refused at load, and which of them decides."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.gears import CHAIN, policy
from fakes.rules import DARK, NIGHT, rule, said, seen
from fakes.tiers import LABELS, manifest
from runtime.core.rules import Rules, Ruling, Verdict, statistics_of
from runtime.errors import PolicyError
from runtime.messages import ContextValue, Tensors, TensorSpec, Tier
from runtime.policy import decode_policy, encode_policy
from runtime.policy_rules import Resort, Rule, RulesFile, check_rules_fit, read_rules

TOML = """
[[rules]]
name = "lens-cap"
when = [{input = "x", statistic = "max", op = "<", value = 0.1}]
answer = "cat"

[[rules]]
name = "night-shift"
when = [{context = "shift", op = "in", value = ["night", "late"]}]
ask = "cloud"
"""


def decided(
    *rules: Rule, x: Any = ((0.0, 0.5),), context: dict[str, ContextValue] | None = None
) -> Verdict:
    inputs: Tensors = {"x": np.asarray(x, np.float32)}
    return Rules(rules, LABELS).decide(inputs, context or {})


def holds(condition: dict[str, Any], **asked: Any) -> bool | None:
    verdict = decided(rule(condition), **asked)
    return None if verdict.unusable else verdict.ruling is not None


def test_a_file_has_its_rules_in_order() -> None:
    first, second = read_rules(TOML, "rules.toml").rules

    assert (first.name, first.does, str(first.when[0])) == (
        "lens-cap", "answer cat", "max of x < 0.1",
    )  # fmt: skip
    assert (second.does, str(second.when[0])) == ("ask cloud", 'shift in ["night","late"]')
    assert read_rules("rules = []", "none.toml") == RulesFile()


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ({**DARK, "context": "shift"}, "on an `input` or on a `context`"),
        ({"op": "<", "value": 1.0}, "on an `input` or on a `context`"),
        ({"input": "x", "op": "<", "value": 1.0}, "a `statistic` goes with"),
        ({**NIGHT, "statistic": "max"}, "a `statistic` goes with"),
        (seen("median", "<", 1.0), "median"),
        (seen("max", "<", "1"), "takes a number"),
        (seen("max", "==", True), "takes a number"),
        (seen("max", "in", [1.0]), "are for a context"),
        (said("shift", "<", "night"), "takes a number"),
        (said("shift", "~", "night"), "~"),
        (said("shift", "in", "night"), "take a list"),
        (said("shift", "==", ["night"]), "take a list"),
        (said("shift", "in", []), "length"),
        (said("lux", "<", float("nan")), "not finite"),
        (said("k" * 65, "==", 1.0), "length"),
        (said("tierwise.moon", "==", 1.0), "none of tierwise.priority"),
        ({**NIGHT, "unless": "day"}, "unless"),
    ],
)
def test_a_condition_that_could_not_be_meant_is_refused(when: dict[str, Any], text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=text):
        rule(when)


@pytest.mark.parametrize("does", [{"ask": "cloud", "answer": "cat"}, {"ask": ""}])
def test_a_rule_does_one_thing(does: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError, match="either has"):
        rule(NIGHT, **does)


@pytest.mark.parametrize("text", ["[[rules]", "", "[[rules]]\nname = 'x'", "name = 'x'"])
def test_what_is_no_file_of_rules_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match=r"mine\.toml has no usable rules"):
        read_rules(text, "mine.toml")


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ([rule(NIGHT), rule(DARK)], "there twice"),
        ([rule(NIGHT, answer="lion")], "'lion', which is no label"),
        ([rule(NIGHT, ask="moon")], "'moon', which is no tier"),
    ],
)
def test_a_policy_cannot_have_rules_of_another(rules: list[Rule], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        policy(*CHAIN.gears, rules=tuple(rules))


@pytest.mark.parametrize(
    ("fallback", "rules", "text"),
    [
        (("lower", "lower"), [], "twice"),
        (("abstain", "lower"), [], "can come after abstain"),
        (("rules",), [], "go with `fallback_rules`"),
        (("lower",), [rule(NIGHT, answer="cat")], "go with `fallback_rules`"),
        (("rules",), [rule(NIGHT, ask="cloud")], "only rules with an `answer`"),
        (("rules",), [rule(NIGHT, answer="lion")], "no label"),
    ],
)
def test_a_fallback_order_that_cannot_be_followed_is_refused(
    fallback: tuple[Resort, ...], rules: list[Rule], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        policy(*CHAIN.gears, fallback=fallback, fallback_rules=tuple(rules))


def test_a_file_has_its_fallback_order() -> None:
    text = 'fallback = ["rules", "abstain"]\n' + TOML.replace("[[rules]]", "[[fallback_rules]]")

    read = read_rules(text, "mine.toml")

    assert read.rules == ()
    assert read.fallback == ("rules", "abstain")
    assert [one.name for one in read.fallback_rules] == ["lens-cap", "night-shift"]


@pytest.mark.parametrize("text", ['fallback = ["pray"]', 'fallback = "lower"'])
def test_an_unknown_resort_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="lower, rules, review and abstain"):
        read_rules(text, "mine.toml")


def test_a_policy_keeps_its_rules() -> None:
    followed = policy(*CHAIN.gears, rules=(rule(NIGHT), rule(DARK, name="s", answer="owl")))

    assert decode_policy(encode_policy(followed), "x") == followed
    assert b"rules" not in encode_policy(CHAIN)


class TestFit:
    def test_rules_about_what_the_model_takes_fit(self) -> None:
        check_rules_fit([rule(NIGHT), rule(DARK, name="s")], manifest(Tier.EDGE), "p.json")

    def test_an_input_that_the_model_does_not_have_is_refused(self) -> None:
        with pytest.raises(PolicyError, match=r"p\.json: the rule r looks at the input 'y'"):
            check_rules_fit([rule(seen("max", "<", 1.0, "y"))], manifest(Tier.EDGE), "p.json")

    def test_of_text_only_the_size_can_be_compared(self) -> None:
        described = msgspec.structs.replace(
            manifest(Tier.EDGE), inputs=(TensorSpec("x", "BYTES", (-1, 1)),)
        )

        check_rules_fit([rule(seen("size", ">", 1.0))], described, "p.json")
        with pytest.raises(PolicyError, match="which is text"):
            check_rules_fit([rule(DARK)], described, "p.json")

    def test_an_answer_needs_an_output_of_logits(self) -> None:
        described = msgspec.structs.replace(
            manifest(Tier.EDGE), outputs=(TensorSpec("votes", "INT32", (-1, 3)),)
        )

        check_rules_fit([rule(NIGHT)], described, "p.json")
        with pytest.raises(PolicyError, match="INT32 and no logits"):
            check_rules_fit([rule(NIGHT, answer="cat")], described, "p.json")


def test_the_first_rule_that_holds_wins() -> None:
    first, second = rule(NIGHT, name="a", answer="owl"), rule(NIGHT, name="b")

    night = decided(first, second, context={"shift": "night"})

    assert night.ruling == Ruling("a", ('shift == "night"',), label=2)
    assert decided(second, first, context={"shift": "night"}).ruling == Ruling(
        "b", ('shift == "night"',), tier=Tier.CLOUD
    )
    assert decided(first, second) == Verdict()


def test_all_conditions_of_a_rule_have_to_hold() -> None:
    both = rule(DARK, NIGHT)

    assert decided(both, x=[[0, 0]], context={"shift": "night"}).ruling is not None
    assert decided(both, x=[[0, 0]]).ruling is None
    assert decided(both, x=[[0, 1]], context={"shift": "night"}).ruling is None


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        (said("k", "==", "a"), "a", True),
        (said("k", "==", "a"), "b", False),
        (said("k", "!=", "a"), "b", True),
        (said("k", "in", ["a", 1.0]), 1, True),
        (said("k", "in", ["a", 1.0]), "b", False),
        (said("k", "not in", ["a", 1.0]), 2.0, True),
        (said("k", "<", 2.0), 1.5, True),
        (said("k", ">=", 2.0), 1.5, False),
        (said("k", "==", True), True, True),
        # Of another kind than what it is compared with.
        (said("k", "==", 1.0), True, None),
        (said("k", "!=", "a"), 1.0, None),
        (said("k", "in", [1.0]), True, None),
        (said("k", "not in", ["a"]), 1.0, None),
        (said("k", "<", 2.0), "1", None),
        (said("k", "!=", 2.0), float("nan"), None),
        (said("k", "==", "a"), b"a", None),
        (said("k", "<", 2.0), 10**400, False),
    ],
)
def test_values_of_two_kinds_are_not_compared(
    condition: dict[str, Any], value: Any, expected: bool | None
) -> None:
    assert holds(condition, context={"k": value}) is expected


@pytest.mark.parametrize("op", ["!=", "not in"])
def test_without_the_key_nothing_holds(op: str) -> None:
    value: Any = ["a"] if op == "not in" else "a"

    assert holds(said("k", op, value)) is False


@pytest.mark.parametrize(
    ("condition", "x", "expected"),
    [
        (seen("mean", "==", 0.5), [[0, 1]], True),
        (seen("min", "<", 0.0), [[0, 1]], False),
        (seen("max", ">=", 1.0), [[0, 1]], True),
        (seen("std", "==", 0.5), [[0, 1]], True),
        (seen("size", "==", 2.0), [[0, 1]], True),
        # Of a batch: of every example.
        (seen("max", "<", 1.0), [[0, 0], [0, 0.5]], True),
        (seen("max", "<", 1.0), [[0, 0], [0, 5]], False),
        (seen("size", "==", 2.0), [[0, 0], [0, 5]], True),
        (seen("max", "<", 1.0), 0.5, True),
        (seen("max", "<", 1.0), np.zeros((0, 2)), None),
        (seen("size", "<", 1.0), np.zeros((2, 0)), None),
        (seen("max", ">", 0.0), [[0, np.nan]], None),
        (seen("max", ">", 0.0), [[0, np.inf]], None),
        (seen("mean", ">", 0.0), [[0, 0], [np.inf, -np.inf]], None),
        (seen("max", "<", 1.0, "y"), [[0, 1]], None),
    ],
)
def test_statistics_are_of_every_example(
    condition: dict[str, Any], x: Any, expected: bool | None
) -> None:
    assert holds(condition, x=x) is expected


@pytest.mark.parametrize("statistic", ["mean", "min", "max", "std"])
def test_text_has_a_size_and_no_other_statistic(statistic: Any) -> None:
    words = np.array([[b"a", b"b"]], object)

    assert statistics_of(words, statistic) is None
    assert statistics_of(words, "size") == [2]


def test_sums_are_in_double_precision() -> None:
    assert statistics_of(np.full((1, 4096), 60_000, np.float16), "mean") == [60_000]
    assert statistics_of(np.array([[True, False]]), "mean") == [0.5]


def test_a_rule_that_could_not_look_is_reported_and_the_next_one_tried() -> None:
    verdict = decided(
        rule(said("shift", "<", 5.0), name="a"), rule(DARK, name="b"), x=[[0, 0]],
        context={"shift": "night"},
    )  # fmt: skip

    assert verdict.unusable == ("a",)
    assert verdict.ruling is not None
    assert verdict.ruling.rule == "b"


def test_no_rules_decide_nothing() -> None:
    assert not Rules()
    assert Rules((rule(NIGHT),))
    assert Rules().decide({}, {}) == Verdict()
