"""How far people who label the same items agree, beyond what chance would give them.

Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement
20(1), 1960: kappa = (p_o - p_e) / (1 - p_e), with the share p_o of items on which two people say
the same, and the share p_e that two people with the same habits would agree on by chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two people, the items that both have labelled, and how far they agree.

    ``kappa`` is None where chance alone explains everything: both have only ever said one label.
    """

    first: str
    second: str
    num_items: int
    num_agreed: int
    kappa: float | None


def kappa_of(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Cohen's kappa of the labels of two people for the same items; None where it has no value."""
    if not pairs:
        return None
    num = len(pairs)
    observed = sum(one == other for one, other in pairs) / num
    firsts, seconds = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    expected = sum(firsts[label] * seconds[label] for label in firsts) / num**2
    if expected >= 1:
        return None
    return (observed - expected) / (1 - expected)


def agreements(labels: Iterable[tuple[str, str, int]]) -> list[PairAgreement]:
    """Of each pair of people with an item in common, from (item, who, label), in order of names."""
    by_who: dict[str, dict[str, int]] = {}
    for item, who, label in labels:
        by_who.setdefault(who, {})[item] = label
    found: list[PairAgreement] = []
    for first, second in combinations(sorted(by_who), 2):
        ours, theirs = by_who[first], by_who[second]
        pairs = [(ours[item], theirs[item]) for item in sorted(ours.keys() & theirs.keys())]
        if pairs:
            agreed = sum(one == other for one, other in pairs)
            found.append(PairAgreement(first, second, len(pairs), agreed, kappa_of(pairs)))
    return found


def overall_kappa(pairs: Iterable[PairAgreement]) -> float | None:
    """The mean kappa of pairs by the items that they have in common; None where none has one."""
    total, num = 0.0, 0
    for one in pairs:
        if one.kappa is not None:
            total += one.kappa * one.num_items
            num += one.num_items
    return total / num if num else None
