"""Rules of a policy: what is decided from inputs or context alone, before any model runs.

Rules of this file:
  * unlike the rest of a policy, a rule with an unknown field is refused: a condition that is
    skipped would make the rule hold where it was not meant to;
  * a rule that could never be compared as written, or that does two things, is refused.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from runtime.errors import PolicyError
from runtime.manifest import ModelManifest

MAX_RULES = 64
MAX_CONDITIONS = 16
MAX_VALUES = 64
# What every tier knows of a request, whether or not its caller said anything.
BUILT_IN = "tierwise."
BUILT_IN_KEYS = ("tierwise.priority", "tierwise.residency", "tierwise.budget_ms")

RuleName = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=64, min_length=1)
]
Key = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=128)]
Value = Text | float | bool
Values = Annotated[tuple[Value, ...], msgspec.Meta(min_length=1, max_length=MAX_VALUES)]
Statistic = Literal["mean", "min", "max", "std", "size"]
Op = Literal["<", "<=", ">", ">=", "==", "!=", "in", "not in"]
# What there is to do where no answer stands; ``Policy.fallback`` has their order.
Resort = Literal["lower", "rules", "review", "abstain"]
Resorts = Annotated[tuple[Resort, ...], msgspec.Meta(max_length=4)]
ORDERED = ("<", "<=", ">", ">=")


class Condition(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A comparison of ``input``'s ``statistic`` or of what the ``context`` has under a key.

    Of a batch it has to hold for every example. It does not hold where there is nothing to
    compare: the key is missing, the value is of another kind, the statistic is not finite.
    """

    op: Op
    value: Value | Values
    input: str = ""
    statistic: Statistic | None = None
    context: Key = ""

    def __post_init__(self) -> None:
        """Refuses what could never be compared.

        Raises:
            ValueError: says what is wrong.
        """
        if bool(self.input) == bool(self.context):
            raise ValueError("a condition is on an `input` or on a `context`")
        if bool(self.input) != (self.statistic is not None):
            raise ValueError("a `statistic` goes with an `input`, and only with one")
        values = self.values
        if not all(math.isfinite(one) for one in values if isinstance(one, float)):
            raise ValueError("a value is not finite")
        if isinstance(self.value, tuple) != (self.op in ("in", "not in")):
            raise ValueError("`in` and `not in` take a list of values, other comparisons take one")
        is_ordered = self.op in ORDERED or bool(self.input)
        if is_ordered and not all(isinstance(one, float) for one in values):
            raise ValueError(f"{self.about} {self.op} takes a number")
        if self.input and self.op in ("in", "not in"):
            raise ValueError("`in` and `not in` are for a context")
        if self.context.startswith(BUILT_IN) and self.context not in BUILT_IN_KEYS:
            raise ValueError(f"{self.context} is none of {', '.join(BUILT_IN_KEYS)}")

    @property
    def values(self) -> tuple[Value, ...]:
        """All values that it compares with."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @property
    def about(self) -> str:
        """What is compared, in words."""
        return f"{self.statistic} of {self.input}" if self.input else self.context

    def __str__(self) -> str:
        value = msgspec.json.encode(self.value).decode()
        return f"{self.about} {self.op} {value}"


class Rule(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where all of ``when`` hold: ``answer`` with a label, or ``ask`` a tier, whatever it says."""

    name: RuleName
    when: Annotated[tuple[Condition, ...], msgspec.Meta(min_length=1, max_length=MAX_CONDITIONS)]
    answer: str = ""
    ask: str = ""

    def __post_init__(self) -> None:
        """Refuses a rule that does nothing or two things.

        Raises:
            ValueError: it does.
        """
        if bool(self.answer) == bool(self.ask):
            raise ValueError(f"the rule {self.name} either has an `answer` or an `ask`")

    @property
    def does(self) -> str:
        """What it does, in words."""
        return f"answer {self.answer}" if self.answer else f"ask {self.ask}"


Rules = Annotated[tuple[Rule, ...], msgspec.Meta(max_length=MAX_RULES)]


class RulesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person writes down for a policy: its first resort, and its last ones.

    ``rules`` decide before any model. Where no answer stands, ``fallback`` is gone through in
    order; ``fallback_rules`` are those of the resort ``rules``.
    """

    rules: Rules = ()
    fallback: Resorts = ()
    fallback_rules: Rules = ()


def read_rules(text: str, source: str) -> RulesFile:
    """The rules in a TOML file: a table ``[[rules]]`` for each, and what to fall back on.

    Raises:
        PolicyError: not TOML, or something else than rules.
    """
    if not text.strip():
        raise PolicyError(f"{source} has no usable rules: it is empty; `rules = []` means none")
    try:
        return msgspec.convert(tomllib.loads(text), RulesFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise PolicyError(
            f"{source} has no usable rules: {error}; write a table [[rules]] for each, with name, "
            "when, and answer or ask, and fallback = [..] of lower, rules, review and abstain"
        ) from error


def check_rules(rules: Sequence[Rule], tiers: Sequence[str], labels: Sequence[str]) -> None:
    """Refuses rules that a policy of these tiers and labels cannot have.

    Raises:
        ValueError: says which rule and why.
    """
    names = sorted(rule.name for rule in rules)
    repeated = [left for left, right in itertools.pairwise(names) if left == right]
    if repeated:
        raise ValueError(f"the rule {repeated[0]} is there twice")
    for rule in rules:
        if rule.answer and rule.answer not in labels:
            raise ValueError(f"the rule {rule.name} answers {rule.answer!r}, which is no label")
        if rule.ask and rule.ask not in tiers:
            raise ValueError(f"the rule {rule.name} asks {rule.ask!r}, which is no tier of it")


def check_fallback(
    fallback: Sequence[Resort],
    rules: Sequence[Rule],
    tiers: Sequence[str],
    labels: Sequence[str],
) -> None:
    """Refuses an order of last resorts that could not be followed as it is written.

    Raises:
        ValueError: says why.
    """
    check_rules(rules, tiers, labels)
    if len(set(fallback)) != len(fallback):
        raise ValueError("a resort is in the fallback order twice")
    if "abstain" in fallback[:-1]:
        raise ValueError("nothing in the fallback order can come after abstain")
    if ("rules" in fallback) != bool(rules):
        raise ValueError("`rules` in the fallback order go with `fallback_rules`, and the reverse")
    asking = [rule.name for rule in rules if rule.ask]
    if asking:
        raise ValueError(f"the fallback rule {asking[0]} asks; only rules with an `answer` can be")


def check_rules_fit(rules: Sequence[Rule], manifest: ModelManifest, source: object) -> None:
    """Refuses rules about inputs that a model does not have, or that have no such statistic.

    Raises:
        PolicyError: says which rule and why.
    """
    datatypes = {spec.name: spec.datatype for spec in manifest.inputs}
    for rule in rules:
        for one in rule.when:
            if not one.input:
                continue
            if one.input not in datatypes:
                raise PolicyError(
                    f"{source}: the rule {rule.name} looks at the input {one.input!r}; "
                    f"{manifest.name} has {', '.join(datatypes)}"
                )
            if datatypes[one.input] == "BYTES" and one.statistic != "size":
                raise PolicyError(
                    f"{source}: the rule {rule.name} takes the {one.statistic} of the input "
                    f"{one.input!r}, which is text; only its size can be compared"
                )
    if any(rule.answer for rule in rules) and not manifest.outputs[0].datatype.startswith("FP"):
        raise PolicyError(
            f"{source}: a rule cannot answer for {manifest.name}, whose output "
            f"{manifest.outputs[0].name!r} is {manifest.outputs[0].datatype} and no logits"
        )
