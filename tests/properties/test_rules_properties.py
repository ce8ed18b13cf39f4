"""Rules hold for whatever a request may contain: never an exception, and what they say they do."""

from __future__ import annotations

import math
import operator
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fakes.rules import rule
from runtime.core.rules import Rules
from runtime.policy_rules import Condition, Rule

KEYS = st.sampled_from(("a", "b", "c"))
NUMBERS = st.sampled_from((-1.0, 0.0, 0.5, 1.0, 2.0)) | st.floats(
    allow_nan=False, allow_infinity=False
)
TEXTS = st.sampled_from(("", "night", "day"))
VALUES = NUMBERS | TEXTS | st.booleans()
ORDERED = ("<", "<=", ">", ">=")
on_input = st.fixed_dictionaries(
    {
        "input": st.sampled_from(("x", "y", "z")),
        "statistic": st.sampled_from(("mean", "min", "max", "std", "size")),
        "op": st.sampled_from((*ORDERED, "==", "!=")),
        "value": NUMBERS,
    }
)
on_context = st.one_of(
    st.fixed_dictionaries({"context": KEYS, "op": st.sampled_from(("==", "!=")), "value": VALUES}),
    st.fixed_dictionaries({"context": KEYS, "op": st.sampled_from(ORDERED), "value": NUMBERS}),
    st.fixed_dictionaries(
        {
            "context": KEYS,
            "op": st.sampled_from(("in", "not in")),
            "value": st.lists(VALUES, min_size=1, max_size=4),
        }
    ),
)
rules = st.lists(
    st.lists(on_input | on_context, min_size=1, max_size=3), min_size=1, max_size=4
).map(lambda whens: [rule(*when, name=f"r{n}") for n, when in enumerate(whens)])
contexts = st.dictionaries(
    KEYS, VALUES | st.floats() | st.integers() | st.none() | st.binary() | st.lists(st.integers())
)
tensors = st.dictionaries(
    st.sampled_from(("x", "y")),
    arrays.arrays(
        st.one_of(
            arrays.floating_dtypes(), arrays.integer_dtypes(), arrays.boolean_dtypes(),
            arrays.complex_number_dtypes(), arrays.byte_string_dtypes(),
            arrays.unicode_string_dtypes(), st.just(np.dtype(object)),
        ),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
        elements=None,
        fill=st.nothing(),
    )
    | arrays.arrays(np.float32, arrays.array_shapes(max_side=3), elements=st.sampled_from((0, 1))),
)  # fmt: skip
COMPARE: dict[str, Any] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


@given(rules, tensors, contexts)
def test_no_request_makes_them_raise(
    made: list[Rule], inputs: dict[str, Any], context: dict[str, Any]
) -> None:
    verdict = Rules(made).decide(inputs, context)

    names = [one.name for one in made]
    assert verdict.ruling is None or verdict.ruling.rule in names
    assert set(verdict.unusable) <= set(names)


@given(
    rules,
    st.dictionaries(
        st.sampled_from(("x", "y")),
        arrays.arrays(
            np.float64,
            st.tuples(st.integers(0, 3), st.integers(0, 3)),
            elements=st.sampled_from((0.0, 0.5, 1.0, math.nan, math.inf)),
        ),
    ),
    st.dictionaries(KEYS, VALUES),
)
def test_what_is_compiled_says_what_is_written(
    made: list[Rule], inputs: dict[str, Any], context: dict[str, Any]
) -> None:
    expected = next(
        (one.name for one in made if all(naive(two, inputs, context) for two in one.when)), None
    )

    ruling = Rules(made).decide(inputs, context).ruling

    assert (ruling.rule if ruling else None) == expected


def naive(condition: Condition, inputs: dict[str, Any], context: dict[str, Any]) -> bool:
    """One condition, word by word."""
    if condition.context:
        return _naive_context(condition, context)
    array = inputs.get(condition.input)
    if array is None or array.size == 0:
        return False
    for example in array:
        found = len(example) if condition.statistic == "size" else _statistic(condition, example)
        if not math.isfinite(found) or not COMPARE[condition.op](found, condition.value):
            return False
    return True


def _statistic(condition: Condition, example: Any) -> float:
    with np.errstate(all="ignore"):
        return float(getattr(example, condition.statistic or "")())


def _naive_context(condition: Condition, context: dict[str, Any]) -> bool:
    if condition.context not in context:
        return False
    value = context[condition.context]
    alike = [one for one in condition.values if type(one) is type(value)]
    if not alike:
        return False
    if condition.op in ("in", "not in"):
        return (value in alike) == (condition.op == "in")
    return bool(COMPARE[condition.op](value, alike[0]))
