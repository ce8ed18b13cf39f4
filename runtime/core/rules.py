"""Which rule of a policy decides a request: the first one whose conditions all hold.

Rules are compiled once, when a policy is loaded; a request then costs a look-up and a comparison
for each condition that has to be looked at, and numpy's time for each statistic, computed once.
Conditions on the context come first, because they cost least.

Nothing here raises on anything that a request holds. What cannot be compared does not hold; it is
reported where it should have been there: a value of another kind, a statistic that is not finite.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.messages import ContextValue, Tensors, Tier
from runtime.policy_rules import Condition, Rule, Statistic

Array = npt.NDArray[np.generic]
Context = Mapping[str, ContextValue]
# Booleans, whole numbers, floats: what has a mean.
_NUMERIC = "biuf"
_OPS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a rule decided: a label, or the tier whose answer it is to be. ``when`` is in words."""

    rule: str
    when: tuple[str, ...]
    label: int | None = None
    tier: Tier | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The ruling, None where no rule holds; and the rules that met an unusable value."""

    ruling: Ruling | None = None
    unusable: tuple[str, ...] = ()


_NOTHING = Verdict()


class _Asked:
    """A request as conditions see it; a statistic is computed once for all rules."""

    __slots__ = ("_found", "_inputs", "context")

    def __init__(self, inputs: Tensors, context: Context) -> None:
        self._inputs, self.context = inputs, context
        self._found: dict[tuple[str, Statistic], list[float] | None] = {}

    def numbers(self, name: str, statistic: Statistic) -> list[float] | None:
        """The statistic of every example; None where one of them has none."""
        key = name, statistic
        if key not in self._found:
            array = self._inputs.get(name)
            self._found[key] = None if array is None else statistics_of(array, statistic)
        return self._found[key]


# Whether a condition holds; None: there was something, and it could not be compared.
_Test = Callable[[_Asked], bool | None]


class Rules:
    """The compiled rules of a policy; ``names`` are in their order."""

    def __init__(self, rules: Sequence[Rule] = (), labels: Sequence[str] = ()) -> None:
        self.names = tuple(rule.name for rule in rules)
        self._compiled = [(_tests(rule), _ruling(rule, labels)) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def decide(self, inputs: Tensors, context: Context) -> Verdict:
        """The first rule that holds; what it looked at in vain on the way is reported."""
        asked = _Asked(inputs, context)
        unusable: list[str] = []
        for tests, ruling in self._compiled:
            for test in tests:
                holds = test(asked)
                if not holds:
                    if holds is None:
                        unusable.append(ruling.rule)
                    break
            else:
                return Verdict(ruling, tuple(unusable))
        return Verdict(None, tuple(unusable)) if unusable else _NOTHING


def statistics_of(array: Array, statistic: Statistic) -> list[float] | None:
    """The statistic of each example along the first axis; None when one is not finite or missing.

    Sums are in double precision, whatever the array is in.
    """
    num = len(array) if array.ndim else 1
    if not num or not array.size:
        return None
    if statistic == "size":
        return [float(array.size // num)]
    if array.dtype.kind not in _NUMERIC:
        return None
    with np.errstate(all="ignore"):
        found = _computed(array.reshape(num, -1), statistic)
    return found if all(map(isfinite, found)) else None


def _computed(rows: Array, statistic: Statistic) -> list[float]:
    if statistic in ("min", "max"):
        extreme = np.minimum if statistic == "min" else np.maximum
        return [float(one) for one in extreme.reduce(rows, axis=1)]
    numbers = rows.astype(np.float64, copy=False)
    found = numbers.mean(axis=1) if statistic == "mean" else numbers.std(axis=1)
    return [float(one) for one in found]


def _ruling(rule: Rule, labels: Sequence[str]) -> Ruling:
    when = tuple(map(str, rule.when))
    if rule.answer:
        return Ruling(rule.name, when, label=labels.index(rule.answer))
    return Ruling(rule.name, when, tier=Tier(rule.ask))


def _tests(rule: Rule) -> tuple[_Test, ...]:
    ordered = sorted(rule.when, key=lambda one: bool(one.input))
    return tuple(_on_input(one) if one.input else _on_context(one) for one in ordered)


def _on_input(condition: Condition) -> _Test:
    name, statistic = condition.input, condition.statistic or "mean"
    compare, value = _OPS[condition.op], condition.value

    def test(asked: _Asked) -> bool | None:
        numbers = asked.numbers(name, statistic)
        if numbers is None:
            return None
        return all(compare(number, value) for number in numbers)

    return test


def kind_of(value: object) -> str:
    """Values of two kinds cannot be compared; true is no number, and NaN is of no kind."""
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number" if value == value else ""  # noqa: PLR0124 - only NaN differs from itself
    return "text" if isinstance(value, str) else ""


def _on_context(condition: Condition) -> _Test:
    key, op = condition.context, condition.op
    kinds = frozenset(map(kind_of, condition.values))
    if op in ("in", "not in"):
        # With the kind, because True == 1.0 to a set.
        members = frozenset((kind_of(one), one) for one in condition.values)
        wanted = op == "in"

        def test_member(asked: _Asked) -> bool | None:
            value = asked.context.get(key)
            if value is None:
                return False
            kind = kind_of(value)
            return ((kind, value) in members) is wanted if kind in kinds else None

        return test_member
    compare, against = _OPS[op], condition.value

    def test_one(asked: _Asked) -> bool | None:
        value = asked.context.get(key)
        if value is None:
            return False
        return compare(value, against) if kind_of(value) in kinds else None

    return test_one
