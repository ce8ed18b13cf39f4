"""Journeys through the tiers: worked out by hand, and the same on the device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fakes.labelled import by_hand, names_of, sampled
from model_zoo.policies.journeys import Itinerary, Learner
from model_zoo.policies.placements import Placement, placements
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.stages import Journeys, Stage, Timing, straight_to_the_top
from model_zoo.policies.tables import Floats
from runtime.core.gears import weigh
from runtime.errors import PolicyError
from runtime.messages import Guarantee
from runtime.policy import Choice, DecisionTable, Gear, Interval, Promise

ANY = Interval(0, 0, 0)
NO_PROMISE = Promise(answered_by={}, cost=ANY, loss=ANY, accuracy=ANY)
# Every kind of example this often, so that the mean of a bin is hardly shrunk.
REPEATS = 2000
SERIAL = Placement((0, 1, 2))
SKIPPING = Placement((0, 1, 2), skips=True)
RACING = Placement((0, 1, 2), skips=True, races=True)
PRICES = (0.1, 0.3, 1.0)

#                   label, (edge, regional, cloud) answers, (edge, regional) scores
EASY = (0, (0, 0, 0), (0.9, 0.9))
FOR_REGIONAL = (0, (1, 0, 0), (0.5, 0.9))
HARD = (0, (1, 1, 0), (0.5, 0.1))
FOR_CLOUD = (0, (1, 1, 0), (0.2, 0.1))
EDGE_KNOWS_BETTER = (1, (1, 0, 1), (0.5, 0.1))
HOPELESS = (0, (1, 1, 1), (0.3, 0.3))
Kind = tuple[int, tuple[int, int, int], tuple[float, float]]


def made_of(*kinds: Kind) -> Predictions:
    """One example of every kind, of three tiers."""
    return by_hand(
        label=[kind[0] for kind in kinds],
        predicted=np.array([kind[1] for kind in kinds]).T.tolist(),
        score=np.array([(*kind[2], 0.0) for kind in kinds]).T.tolist(),
        price=PRICES,
    )


def repeated(timing: Timing, times: int) -> Timing:
    num = timing.hop_ms.shape[1]
    return timing.take(np.tile(np.arange(num), times))


def learned(
    kinds: Sequence[Kind], placement: Placement, penalty: float, timing: Timing | None = None
) -> Journeys:
    """Journeys of one example of every kind, learned from many of each."""
    examples = made_of(*kinds)
    many = examples.take(np.tile(np.arange(len(kinds)), REPEATS))
    stage = Stage(many, None if timing is None else repeated(timing, REPEATS))
    return Learner(stage, placement).fit(penalty).follow(Stage(examples, timing))


def times(
    regional_ms: Sequence[float], cloud_ms: Sequence[float], budget_ms: float, service_ms: float = 0
) -> Timing:
    """Round trips of every example: to the regional tier, and on to the cloud."""
    hop_ms = np.array([np.zeros(len(regional_ms)), regional_ms, cloud_ms])
    return Timing(hop_ms, np.full_like(hop_ms, service_ms), budget_ms)


def test_a_serial_journey_ends_where_the_answer_is_right() -> None:
    ends = learned([EASY, FOR_REGIONAL, HARD], SERIAL, 0.1)

    np.testing.assert_array_equal(ends.answered_by, [0, 1, 2])
    np.testing.assert_array_equal(ends.correct, [1, 1, 1])
    np.testing.assert_allclose(ends.cost, [0.1, 0.4, 1.4])
    assert not ends.late.any()


def test_a_dear_tier_is_not_asked_for_less_than_it_costs() -> None:
    # Of the unsure half are the cloud's: worth 0.3 + 0.5 * 1.0 to correct all, at up to 1 / 0.8.
    ends = learned([EASY, FOR_REGIONAL, HARD], SERIAL, 1.1)

    np.testing.assert_array_equal(ends.answered_by, [0, 1, 1])
    np.testing.assert_allclose(ends.cost, [0.1, 0.4, 0.4])


def test_at_a_high_penalty_nobody_is_asked() -> None:
    ends = learned([EASY, FOR_REGIONAL, HARD], RACING, 20)

    np.testing.assert_array_equal(ends.answered_by, [0, 0, 0])
    np.testing.assert_array_equal(ends.correct, [1, 0, 0])
    np.testing.assert_allclose(ends.cost, 0.1)


def test_what_nobody_knows_climbs_for_nothing_only_when_climbing_is_paid_for() -> None:
    kinds = [EASY, HOPELESS]

    np.testing.assert_array_equal(learned(kinds, SERIAL, 0.01).answered_by, [0, 0])
    np.testing.assert_array_equal(learned(kinds, SERIAL, -0.1).answered_by, [2, 2])


def test_a_tier_that_would_not_know_is_skipped() -> None:
    serial = learned([EASY, FOR_REGIONAL, FOR_CLOUD], SERIAL, 0.1)
    skipping = learned([EASY, FOR_REGIONAL, FOR_CLOUD], SKIPPING, 0.1)

    np.testing.assert_array_equal(serial.answered_by, [0, 1, 2])
    np.testing.assert_array_equal(skipping.answered_by, [0, 1, 2])
    np.testing.assert_allclose(serial.cost, [0.1, 0.4, 1.4])
    np.testing.assert_allclose(skipping.cost, [0.1, 0.4, 1.1])


def test_an_earlier_answer_is_given_where_it_is_the_better_one() -> None:
    kinds = [EASY, FOR_REGIONAL, FOR_REGIONAL, EDGE_KNOWS_BETTER]

    # The regional tier is worth asking for two in three; where it is unsure and disagrees, the
    # edge was right, for nothing more.
    ends = learned(kinds, SERIAL, 0.5)

    np.testing.assert_array_equal(ends.answered_by, [0, 1, 1, 0])
    np.testing.assert_array_equal(ends.correct, [1, 1, 1, 1])
    np.testing.assert_allclose(ends.cost, [0.1, 0.4, 0.4, 0.4])


def test_the_top_is_asked_directly_where_there_is_no_time_for_one_after_the_other() -> None:
    # By way of the regional tier the cloud's answer takes 6 + 5 + 6 + 10 + 6 = 33 ms, without that
    # tier's own work 27 ms.
    timing = times([5, 5, 5], [10, 10, 10], budget_ms=28, service_ms=6)
    kinds = [EASY, FOR_REGIONAL, HARD]

    serial = learned(kinds, SERIAL, 0.01, timing)
    skipping = learned(kinds, SKIPPING, 0.01, timing)
    hurried = learned(kinds, SKIPPING, 0.01, replace(timing, budget_ms=26.0))

    np.testing.assert_array_equal(serial.answered_by, [0, 1, 1])
    np.testing.assert_array_equal(skipping.answered_by, [0, 2, 2])
    np.testing.assert_array_equal(hurried.answered_by, [0, 1, 1])


def test_a_race_takes_the_higher_answer_in_time_and_pays_both() -> None:
    # The cloud is back in time for the first and the last; the regional tier for the second too.
    stage = Stage(
        made_of(FOR_REGIONAL, FOR_REGIONAL, HARD, HARD),
        times([5, 5, 50, 5], [10, 90, 10, 10], budget_ms=20),
    )

    ends = stage.asks((0,), (1, 2), {})

    np.testing.assert_array_equal(ends.answered_by, [2, 1, 0, 2])
    np.testing.assert_array_equal(ends.correct, [1, 1, 0, 1])
    np.testing.assert_array_equal(ends.late, [False, True, True, False])
    np.testing.assert_allclose(ends.cost, 1.3)


def test_a_race_is_run_where_one_tier_alone_is_too_often_late() -> None:
    # Half of the cloud's replies are late. Where they are, the regional tier's is right.
    kinds = [EASY, FOR_REGIONAL, HARD]
    timing = times([5, 5, 5], [10, 90, 10], budget_ms=28, service_ms=6)

    ends = learned(kinds, RACING, 0.01, timing)

    np.testing.assert_array_equal(ends.answered_by, [0, 1, 2])
    np.testing.assert_array_equal(ends.correct, [1, 1, 1])
    np.testing.assert_allclose(ends.cost, [0.1, 1.4, 1.4])
    np.testing.assert_array_equal(ends.late, [False, True, False])


def test_a_late_reply_leaves_the_lower_answer_and_is_paid() -> None:
    stage = Stage(made_of(FOR_REGIONAL, FOR_REGIONAL), times([5, math.inf], [0, 0], budget_ms=20))

    ends = stage.asks((0,), (1,), {})

    np.testing.assert_array_equal(ends.answered_by, [1, 0])
    np.testing.assert_array_equal(ends.correct, [1, 0])
    np.testing.assert_array_equal(ends.late, [False, True])
    np.testing.assert_allclose(ends.cost, 0.3)


def test_a_reply_that_is_late_further_up_leaves_the_answer_in_between() -> None:
    kinds = [EASY, HARD, HARD, HARD]
    timing = times([5, 5, 5, 90], [5, 5, 90, 5], budget_ms=20)

    ends = learned(kinds, SERIAL, 0.01, timing)

    np.testing.assert_array_equal(ends.answered_by, [0, 2, 1, 0])
    np.testing.assert_array_equal(ends.correct, [1, 1, 0, 0])
    np.testing.assert_array_equal(ends.late, [False, False, True, True])
    # Whoever never heard from the regional tier has only that to pay.
    np.testing.assert_allclose(ends.cost, [0.1, 1.4, 1.4, 0.4])


def test_a_reply_exactly_at_the_end_of_the_budget_is_in_time() -> None:
    timing = times([10], [20], budget_ms=36, service_ms=3)

    np.testing.assert_array_equal(timing.elapsed_ms((0,)), [3])
    np.testing.assert_array_equal(timing.elapsed_ms((0, 1)), [16])
    np.testing.assert_array_equal(timing.elapsed_ms((0, 2)), [36])
    np.testing.assert_array_equal(timing.elapsed_ms((0, 1, 2)), [39])
    assert timing.in_time((0, 2)).all()
    assert not timing.in_time((0, 1, 2)).any()


def test_straight_to_the_top_costs_the_price_of_the_top() -> None:
    ends = straight_to_the_top(Stage(made_of(EASY, HARD, HOPELESS)))

    np.testing.assert_array_equal(ends.answered_by, 2)
    np.testing.assert_array_equal(ends.correct, [1, 1, 0])
    np.testing.assert_array_equal(ends.cost, 1)
    assert not ends.late.any()


def test_straight_to_the_top_has_no_answer_when_it_is_late() -> None:
    timing = times([5, 5], [5, 90], budget_ms=20, service_ms=4)

    ends = straight_to_the_top(Stage(made_of(EASY, EASY), timing))

    np.testing.assert_array_equal(ends.correct, [1, 0])
    np.testing.assert_array_equal(ends.late, [False, True])
    np.testing.assert_array_equal(ends.cost, 1)


def test_the_dearest_journey_asks_every_tier_once() -> None:
    stage = Stage(made_of(EASY, FOR_REGIONAL, HARD))
    ends = Learner(stage, SERIAL).fit(-1.0).follow(stage)

    assert ends.dearest == ends.take(np.array([1])).dearest == pytest.approx(1.4)
    np.testing.assert_allclose(ends.cost, ends.dearest)


def test_placements_start_at_the_lowest_tier_and_end_at_the_top() -> None:
    words = [placement.describe(names_of(4)) for placement in placements(4, with_races=True)]

    assert words == [
        "edge > cloud",
        "edge > regional > cloud",
        "edge > regional > cloud +skip",
        "edge > regional > cloud +skip +race",
        "edge > metro > cloud",
        "edge > metro > cloud +skip",
        "edge > metro > cloud +skip +race",
        "edge > regional > metro > cloud",
        "edge > regional > metro > cloud +skip",
        "edge > regional > metro > cloud +skip +race",
    ]  # fmt: skip


def test_races_are_left_out_where_time_plays_no_part() -> None:
    assert not any(placement.races for placement in placements(4, with_races=False))


def test_what_a_stop_may_ask() -> None:
    tiers = (0, 1, 2, 3)

    assert Placement(tiers).targets((0,)) == [(1,)]
    assert Placement(tiers, skips=True).targets((0,)) == [(1,), (2,), (3,)]
    assert Placement(tiers, True, True).targets((0, 1)) == [(2,), (3,), (2, 3)]
    assert Placement(tiers, True, True).targets((0, 2)) == [(3,)]


# The device, one example at a time.


@dataclass
class Device:
    """Follows a gear's tables as a fleet does: looks up, asks, pays, waits, falls back."""

    gear: Gear
    predictions: Predictions
    timing: Timing | None

    def elapsed_ms(self, stop: Sequence[int], example: int) -> float:
        if self.timing is None:
            return -math.inf
        hops = sum(self.timing.hop_ms[tier][example] for tier in range(1, stop[-1] + 1))
        return float(hops + sum(self.timing.service_ms[tier][example] for tier in stop))

    def is_back(self, stop: Sequence[int], example: int) -> bool:
        budget_ms = math.inf if self.timing is None else self.timing.budget_ms
        return self.elapsed_ms(stop, example) <= budget_ms

    def choice_at(self, stop: tuple[int, ...], example: int) -> Choice | None:
        table = self.gear.table_at(tuple(self.predictions.tiers[tier] for tier in stop))
        if table is None:
            return None
        labels = [int(self.predictions.predicted[tier][example]) for tier in stop]
        return weigh(
            self.gear,
            table,
            label=labels[-1],
            score=float(self.predictions.score[stop[-1]][example]),
            earlier=labels[:-1],
        ).choice

    def climb(self, example: int) -> tuple[int, list[int], bool]:
        """Whose answer it is, who was asked, and whether a reply was missed."""
        tiers = self.predictions.tiers
        stop: tuple[int, ...] = (0,)
        asked = [0]
        while (choice := self.choice_at(stop, example)) is not None:
            if choice.answer:
                return tiers.index(choice.answer), asked, False
            to = [tiers.index(name) for name in choice.to]
            asked += to
            back = [tier for tier in to if self.is_back((*stop, tier), example)]
            if not back:
                return stop[-1], asked, True
            if len(to) > 1:
                return back[-1], asked, back[-1] != to[-1]
            stop = (*stop, *to)
        return stop[-1], asked, False


def gear_of(itinerary: Itinerary, names: tuple[str, ...]) -> Gear:
    return Gear(
        name="any",
        guarantee=Guarantee.NONE,
        penalty=itinerary.penalty,
        tables=itinerary.tables(names),
        promise=NO_PROMISE,
    )


def tiers_of(num_tiers: int, seed: int, num_examples: int) -> Predictions:
    return sampled(
        seed,
        num_examples,
        accuracy=np.linspace(0.6, 0.95, num_tiers).tolist(),
        price=np.geomspace(0.03, 1, num_tiers).tolist(),
    )


def unlike(examples: Predictions, itinerary: Itinerary) -> Predictions:
    """Other examples: half of the scores on edges of a table, some far off, labels unseen."""
    random = np.random.default_rng(8)
    score, predicted = examples.score.copy(), examples.predicted.copy()
    for stop, fitted in itinerary.stops.items():
        edges = np.concatenate([*fitted.grid.edges, [-5.0, 0.0, 1.0, 7.0]])
        chosen = random.random(examples.num_examples) < 0.3
        score[stop[-1], chosen] = random.choice(edges, int(chosen.sum()))
    chosen = random.random(predicted.shape) < 0.2
    predicted[chosen] = len(examples.label_names) - 1
    return replace(examples, score=score, predicted=predicted)


def with_a_class_never_seen(examples: Predictions) -> Predictions:
    return replace(examples, label_names=(*examples.label_names, "never seen"))


def timing_like(examples: Predictions, seed: int) -> Timing:
    random = np.random.default_rng(seed)
    hop_ms: Floats = np.round(random.lognormal(2, 0.8, examples.predicted.shape))
    hop_ms[0] = 0
    hop_ms[random.random(hop_ms.shape) < 0.05] = math.inf
    return Timing(hop_ms, np.full_like(hop_ms, 2.0), 30.0)


CONFIGURATIONS = [
    (num_tiers, placement, penalty, with_time)
    for num_tiers in (2, 3, 4)
    for placement in placements(num_tiers, with_races=True)
    for penalty, with_time in ((-0.05, False), (0.05, False), (0.05, True), (0.4, True))
    if with_time or not placement.races
]


@pytest.mark.parametrize(
    ("num_tiers", "placement", "penalty", "with_time"),
    CONFIGURATIONS,
    ids=[f"{p.describe(names_of(k))} {penalty} {t}" for k, p, penalty, t in CONFIGURATIONS],
)
def test_the_device_takes_the_journeys_that_were_judged(
    num_tiers: int, placement: Placement, penalty: float, with_time: bool
) -> None:
    train = with_a_class_never_seen(tiers_of(num_tiers, 1, 900))
    stage = Stage(train, timing_like(train, 2) if with_time else None)
    itinerary = Learner(stage, placement).fit(penalty)
    held = unlike(with_a_class_never_seen(tiers_of(num_tiers, 3, 250)), itinerary)
    timing = timing_like(held, 4) if with_time else None
    device = Device(gear_of(itinerary, held.tiers), held, timing)

    ends = itinerary.follow(Stage(held, timing))

    prices = held.relative_price
    for example in range(held.num_examples):
        answered_by, asked, is_late = device.climb(example)
        assert ends.answered_by[example] == answered_by
        assert ends.late[example] == is_late
        assert ends.correct[example] == held.correct[answered_by, example]
        # Whoever is asked is paid, once, however late.
        assert len(set(asked)) == len(asked)
        assert ends.cost[example] == pytest.approx(sum(prices[tier] for tier in asked))


def test_configurations_use_everything_that_a_table_can_say() -> None:
    """The comparison with the device would be worth little if it never left the beaten track."""
    kinds: set[tuple[int, bool]] = set()
    has_bins: set[bool] = set()
    for num_tiers, placement, penalty, with_time in CONFIGURATIONS:
        train = with_a_class_never_seen(tiers_of(num_tiers, 1, 900))
        stage = Stage(train, timing_like(train, 2) if with_time else None)
        for table in Learner(stage, placement).fit(penalty).tables(train.tiers):
            kinds |= {(len(choice.to), bool(choice.answer)) for choice in table.choices}
            has_bins |= {len(edges) > 1 for edges in table.edges}

    assert kinds == {(1, False), (2, False), (0, True)}
    assert has_bins == {True, False}


@pytest.mark.parametrize("placement", placements(3, with_races=True))
def test_tables_read_back_lead_to_the_same_journeys(placement: Placement) -> None:
    train = tiers_of(3, 1, 900)
    stage = Stage(train, timing_like(train, 2))
    itinerary = Learner(stage, placement).fit(0.05)
    gear = gear_of(itinerary, train.tiers)

    again = Itinerary.of(gear, train.tiers, train.label_names)

    first, second = itinerary.follow(stage), again.follow(stage)
    for name in ("correct", "cost", "answered_by", "late"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def hand_made() -> Gear:
    """Asks the cloud below 0.5 and the regional tier below 0.8, whatever the label."""
    cells = ((3.0, 0.0, 0.0),) * 2
    table = DecisionTable(
        tiers=("edge",),
        rows=(0, 0),
        edges=((0.5, 0.8), (0.5, 0.8)),
        choices=(
            Choice(gain=cells, cost=((1.0, 1.0, 1.0),) * 2, to=("cloud",)),
            Choice(gain=((0.0, 0.5, 0.0),) * 2, cost=((0.3, 0.3, 0.3),) * 2, to=("regional",)),
        ),
    )
    return Gear(
        name="hand-made", guarantee=Guarantee.NONE, penalty=0.1, tables=(table,), promise=NO_PROMISE
    )


def test_a_table_made_by_hand_is_followed() -> None:
    kinds = [EASY, FOR_REGIONAL, HARD, FOR_CLOUD, EDGE_KNOWS_BETTER, HOPELESS]
    examples = made_of(*kinds)

    ends = Itinerary.of(hand_made(), examples.tiers, examples.label_names).follow(Stage(examples))

    # A score of 0.5 is in the bin above.
    np.testing.assert_array_equal(ends.answered_by, [0, 1, 1, 2, 1, 2])
    np.testing.assert_array_equal(ends.correct, [1, 1, 0, 1, 0, 0])
    np.testing.assert_allclose(ends.cost, [0.1, 0.4, 0.4, 1.1, 0.4, 1.1])


@pytest.mark.parametrize(
    ("tiers", "labels"),
    [(("phone", "regional", "cloud"), ("a", "b")), (("edge", "regional", "cloud"), ("a",))],
)
def test_tables_of_other_tiers_or_classes_are_refused(
    tiers: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    with pytest.raises(PolicyError, match="gear hand-made is for edge and 2 classes"):
        Itinerary.of(hand_made(), tiers, labels)


@pytest.mark.parametrize("num", [1, 3])
def test_a_handful_of_examples_can_be_learned_from(num: int) -> None:
    stage = Stage(sampled(5, num))

    for placement, penalty in itertools.product(placements(3, with_races=False), (-1.0, 0.1, 5.0)):
        ends = Learner(stage, placement).fit(penalty).follow(stage)

        assert np.isfinite(ends.cost).all()
        assert (ends.cost >= stage.price[0]).all()


def test_some_of_a_stage_is_the_same_in_all_of_its_parts() -> None:
    examples = tiers_of(3, 1, 50)
    stage = Stage(examples, timing_like(examples, 2))

    some = stage.take(np.array([4, 1]))

    assert some.num == 2
    np.testing.assert_array_equal(some.correct, stage.correct[:, [4, 1]])
    np.testing.assert_array_equal(some.in_time((0, 2)), stage.in_time((0, 2))[[4, 1]])
