"""Two arms on every device: compared within devices, looked at after each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from msgspec.structs import replace

from runtime.core.confidence_sequence import Interval, Moments, difference_of, paired_of
from runtime.core.experiment import Answer, Arm, Experiment, Goal, Outcome, answer, noted

ARMS = (Arm("control"), Arm("new"))
PRIMARY = Goal("escalations", larger_is_better=False)
ASKED = Experiment(
    "e", ARMS, PRIMARY, (Goal("errors", larger_is_better=False, allowed=0.01),), min_num=30
)
Kept = dict[str, dict[str, Moments]]
Pair = dict[str, tuple[float, float]]


def device(rng: np.random.Generator, share: float, ratio: float) -> Pair:
    """Shares of both arms, on a device unlike the others, whose callers come in bursts.

    Devices and callers have rates of their own; all requests of a caller go to one arm.
    """
    num_callers = int(rng.integers(5, 60))
    lengths = rng.geometric(1 / 8, num_callers)
    is_new = rng.random(num_callers) < share
    if is_new.all() or not is_new.any():
        return {}
    found: Pair = {}
    for name, mean, times in (("escalations", 0.16, ratio), ("errors", 0.02, 1.0)):
        rate = rng.beta(10 * mean, 10 * (1 - mean))
        own = rng.beta(4 * rate + 1e-3, 4 * (1 - rate) + 1e-3, num_callers)
        events = rng.binomial(lengths, np.where(is_new, np.minimum(1.0, own * times), own))
        found[name] = (
            float(events[~is_new].sum() / lengths[~is_new].sum()),
            float(events[is_new].sum() / lengths[is_new].sum()),
        )
    return found


def looks(rng: np.random.Generator, num: int, share: float, ratio: float) -> Iterator[Answer]:
    """What is said after each device."""
    kept: Kept = {}
    pairs: dict[str, Moments] = {}
    for _ in range(num):
        values = device(rng, share, ratio)
        if not values:
            continue
        for at, arm in enumerate(ARMS):
            kept = noted(kept, arm.name, {name: pair[at] for name, pair in values.items()})
        for name, (control, new) in values.items():
            pairs[name] = pairs.get(name, Moments()).plus(new - control)
        yield answer(ASKED, kept, paired=pairs)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_where_nothing_differs_hardly_anybody_ever_hears_of_it(share: float) -> None:
    """However often it is looked at: of 150 experiments at most 5 %, which are 7."""
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(150):
        said = {one.outcome for one in looks(rng, 120, share, 1.0)}
        wrong += bool(said & {Outcome.WINS, Outcome.GUARDRAIL_BROKEN})

    assert wrong <= 7


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_twice_as_many_escalations_are_found(share: float) -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        ends = [one for one in looks(rng, 200, share, 2.0) if one.outcome is Outcome.WINS]
        assert ends
        assert ends[0].arm == "control"
        assert ends[0].gains["new"].high < 0


def test_what_devices_have_in_common_with_themselves_is_taken_out() -> None:
    """Of devices between 0 and 0.8 one version is better by 0.05."""
    shares = [0.8 * number / 99 for number in range(100)]
    first, second, apart = Moments(), Moments(), Moments()
    for share in shares:
        first, second = first.plus(share), second.plus(share + 0.05)
        apart = apart.plus(0.05)

    paired, unpaired = paired_of(apart, 0.05, 300), difference_of(second, first, 0.05, 300)

    assert 0 < paired.low < 0.05 < paired.high
    assert unpaired.low < 0 < unpaired.high
    assert paired_of(Moments(), 0.05, 300) == Interval(-1.0, 1.0)


@pytest.mark.parametrize("is_larger_better", [True, False])
def test_who_wins_is_who_is_better(*, is_larger_better: bool) -> None:
    asked = replace(ASKED, primary=Goal("right", larger_is_better=is_larger_better))
    kept: Kept = {}
    pairs: dict[str, Moments] = {}
    for _ in range(400):
        for arm, right in (("control", 0.5), ("new", 0.8)):
            kept = noted(kept, arm, {"right": right, "errors": 0.0})
        for name, apart in (("right", 0.3), ("errors", 0.0)):
            pairs[name] = pairs.get(name, Moments()).plus(apart)

    said = answer(asked, kept, paired=pairs)

    assert (said.outcome, said.arm) == (Outcome.WINS, "new" if is_larger_better else "control")
    assert (said.gains["new"].low > 0) is is_larger_better


def test_pairs_are_of_two_arms() -> None:
    with pytest.raises(ValueError, match="pairs are of two arms"):
        answer(replace(ASKED, arms=(*ARMS, Arm("third"))), {}, paired={})
