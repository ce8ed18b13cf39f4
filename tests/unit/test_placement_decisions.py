"""What a placement comes to, what else there is, and what would change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from fakes.placing import CASE, LINKS, PLACES, answers, spread
from runtime.core.placement.bounds import because, relaxations, sensitivity
from runtime.core.placement.case import Case, Kind, Limits, Link, Load, Model, Place, Spread
from runtime.core.placement.chains import describe, options, way_down
from runtime.core.placement.curves import Answers, curve_of, estimated_curve
from runtime.core.placement.decide import Choice, cheapest, front, one_of_each, recommend
from runtime.core.placement.knobs import inputs_of, limits_of
from runtime.core.placement.options import Evaluator
from runtime.core.placement.terms import call_prices, round_trips_ms, terms_of, tiers_of
from runtime.core.placement.travel import (
    NUM_SAMPLES,
    Sampler,
    mean_service_ms,
    paths,
    quantile_ms,
)
from runtime.errors import PolicyError
from runtime.messages import Tier

EVALUATOR = Evaluator(answers())


def best(case: Case, evaluator: Evaluator = EVALUATOR) -> Choice:
    found = recommend(evaluator, case)
    assert found is not None
    return found


def limited(**changes: object) -> Case:
    return replace(CASE, limits=replace(CASE.limits, **changes))


class TestCurves:
    def test_with_two_tiers_a_threshold_parts_the_examples(self) -> None:
        score = np.asarray([[0.1, 0.2, 0.8, 0.9], [0.5] * 4])
        correct = np.asarray([[False, True, True, True], [True] * 4])

        curve = curve_of(Answers(score, correct), [0, 1])

        # To ask about one of four is enough; more asking wins nothing.
        assert sorted(curve.reach[:, 1].tolist()) == [0.0, 0.25]
        assert sorted(curve.accuracy.tolist()) == [0.75, 1.0]
        assert curve.cut[:, 0].tolist() == [0.75, 0.75]

    def test_without_predictions_answers_mix(self) -> None:
        curve = estimated_curve([0.8, 0.9])

        assert curve.is_estimate
        assert np.isnan(curve.accept_at).all()
        assert curve.accuracy == pytest.approx(0.8 + 0.1 * curve.reach[:, 1])

    def test_one_model_has_one_setting(self) -> None:
        assert curve_of(answers(), [1]).num == 1
        assert estimated_curve([0.7]).accuracy.tolist() == [pytest.approx(0.7)]

    def test_a_chain_with_a_model_that_nobody_has_asked_is_an_estimate(self) -> None:
        models = (CASE.models[0], replace(CASE.models[2], row=None))
        case = replace(CASE, models=models, limits=replace(CASE.limits, max_leaving_share=0.9,
                                                           min_accuracy=0.85))  # fmt: skip

        found = [one for one in front(EVALUATOR, case) if len(one.outcome.option) > 1]

        assert all(one.placed().is_estimate for one in found)
        assert {part.accept_at for one in found for part in one.placed().parts} == {None}


class TestTravel:
    def test_lognormal_draws_have_the_quantiles_that_were_given(self) -> None:
        drawn = Sampler(1).spread_ms("x", Spread(10.0, 40.0))

        assert np.median(drawn) == pytest.approx(10, rel=0.05)
        assert np.quantile(drawn, 0.99) == pytest.approx(40, rel=0.15)
        assert drawn.mean() == pytest.approx(mean_service_ms(Spread(10.0, 40.0)), rel=0.05)

    def test_as_many_wait_as_a_queue_is_busy_and_as_long_as_it_says(self) -> None:
        waits = Sampler(1).wait_ms("x", 2.0, 0.5)

        assert (waits > 0).mean() == pytest.approx(0.5, abs=0.03)
        # M/M/1: utilization * service / (1 - utilization).
        assert waits.mean() == pytest.approx(2.0, rel=0.1)

    def test_lost_exchanges_take_for_ever_and_bytes_take_their_time(self) -> None:
        load = Load((1.0,), 900.0, 100.0)
        slow = Sampler(1).link_ms(Link("a", "b", 5.0, bandwidth_bps=8000.0), load)
        lossy = Sampler(1).link_ms(Link("a", "b", 5.0, loss_share=0.2), load)

        assert slow.tolist() == [pytest.approx(1005)] * NUM_SAMPLES
        assert np.isinf(lossy).mean() == pytest.approx(0.2, abs=0.03)

    def test_the_same_name_draws_the_same(self) -> None:
        assert (Sampler(3).uniform("x") == Sampler(3).uniform("x")).all()
        assert (Sampler(3).uniform("x") != Sampler(4).uniform("x")).any()

    def test_the_shorter_of_two_ways_is_taken(self) -> None:
        direct = Link("camera", "cloud", 30.0)

        found = paths(replace(CASE, links=(*LINKS, direct)))

        assert found["camera", "cloud"] == (direct,)
        assert found["camera", "region"] == LINKS[:2]
        assert ("region", "gateway") not in found
        longer = replace(direct, rtt_ms=99.0)
        assert paths(replace(CASE, links=(*LINKS, longer)))["camera", "cloud"] == LINKS
        assert paths(replace(CASE, links=(longer, *LINKS)))["camera", "cloud"] == LINKS

    def test_a_quantile_of_a_mixture_has_an_interval(self) -> None:
        samples = np.asarray([np.arange(100.0), 1000 + np.arange(100.0)])

        middle, low, high = quantile_ms(samples, np.asarray([0.9, 0.1]), 0.95)

        assert (middle, low < middle < high) == (1049, True)


class TestOptions:
    def test_models_and_places_rise_together(self) -> None:
        found = [describe(option) for option in options(CASE)]

        assert len(found) == len(set(found))
        assert "small@camera > large@cloud" in found
        assert "large@camera > small@cloud" not in found
        assert "small@cloud > large@camera" not in found
        # The large one runs on 3 places; 3 pairs of models on 6 of places, 1 triple on 4.
        assert len(found) == 4 + 4 + 3 + 18 + 4

    def test_a_model_without_a_latency_at_a_place_is_not_put_there(self) -> None:
        here = replace(CASE.models[0], latency={"cloud": spread(1.0)})

        found = [describe(one) for one in options(replace(CASE, models=(here,)))]

        assert found == ["small@cloud"]

    def test_places_without_a_link_are_not_reached(self) -> None:
        found = [describe(one) for one in options(replace(CASE, links=LINKS[1:]))]

        assert "small@camera" in found
        assert "small@gateway" not in found
        assert "small@camera > large@cloud" not in found

    def test_a_new_version_comes_from_the_highest_place(self) -> None:
        assert way_down(CASE, paths(CASE), PLACES[0]) == LINKS
        assert way_down(CASE, paths(CASE), PLACES[3]) == ()


class TestFigures:
    def test_the_cost_has_its_parts(self) -> None:
        """One model on two machines at a place without power: by hand."""
        place = Place("cloud", Kind.CLOUD, 1, 3.6, num_workers=1, max_machines=9)
        device = Place("camera", Kind.DEVICE, 10, busy_w=5.0, idle_w=1.0)
        case = Case(
            models=(Model("m", 0.9, 1e6, 1.0, {"cloud": spread(100.0)}),),
            places=(device, place),
            links=(Link("camera", "cloud", 10.0, price_per_gb=0.1),),
            load=Load((10.0,), 1000.0, 0.0, updates_per_day=24.0),
            limits=Limits(1e4, 0.5),
            max_utilization=0.5,
        )

        found = best(case, Evaluator()).placed()

        # 10/s of 0.1 s each on workers that may be half busy.
        assert found.parts[0].machines == 2
        assert found.compute == pytest.approx(2 * 3.6 / 36_000 * 1e6)
        # A new version comes down over no link here, as nothing is above the cloud.
        assert found.transfer == pytest.approx(1e6 * 1000 / 1e9 * 0.1)
        assert found.power == 0
        assert found.is_estimate
        assert [(cut.link, cut.served_share) for cut in found.cuts] == [("camera > cloud", 0.0)]

    def test_power_is_idle_all_day_and_work_above_it(self) -> None:
        device = Place("camera", Kind.DEVICE, 2, busy_w=5.0, idle_w=1.0, num_workers=2)
        case = replace(
            CASE,
            models=(Model("m", 1.0, 1e6, 1.0, {"camera": spread(100.0)}),),
            places=(device,),
            links=(),
            load=Load((1.0,), 1000.0, 0.0),
            price_per_kwh=3.6,
        )

        found = best(case, Evaluator()).placed()

        # 2 W all day and 4 W / 2 for 0.1 s each: 2.2 J a request, a million of them, 3.6e6 J/kWh.
        assert found.power == pytest.approx(2.2)

    def test_new_versions_go_to_every_machine(self) -> None:
        case = replace(CASE, models=CASE.models[:1], limits=Limits(100.0, 0.5))
        more = replace(case, load=replace(case.load, updates_per_day=1000.0))

        assert best(more).placed().transfer > best(case).placed().transfer

    def test_without_a_link_the_tier_below_answers(self) -> None:
        found = best(limited(min_accuracy=0.93, max_leaving_share=0.5)).placed()

        assert len(found.parts) > 1
        assert {cut.served_share for cut in found.cuts} == {1.0}
        assert all(cut.accuracy < found.accuracy for cut in found.cuts)
        assert min(cut.availability_share for cut in found.cuts) <= 1.0

    def test_what_is_late_leaves_the_answer_below(self) -> None:
        option = next(one for one in options(CASE) if describe(one) == "small@camera > large@cloud")
        late = EVALUATOR.outcome(limited(budget_ms=20.0), option)
        in_time = EVALUATOR.outcome(limited(budget_ms=500.0), option)

        assert (late.accuracy <= in_time.accuracy).all()
        assert late.accuracy == pytest.approx(late.curve.cut[:, 0], abs=1e-3)

    def test_of_equal_costs_the_more_accurate_setting_is_taken(self) -> None:
        free = tuple(replace(one, price_per_hour=0.0, busy_w=0.0, idle_w=0.0) for one in PLACES)
        links = tuple(replace(one, price_per_gb=0.0) for one in LINKS)
        case = replace(CASE, places=free, links=links)

        found = best(case)

        assert found.cost == 0
        assert found.placed().accuracy == max(
            choice.placed().accuracy for choice in front(EVALUATOR, case)
        )

    def test_an_option_that_keeps_no_limit_has_no_cheapest_setting(self) -> None:
        outcome = next(EVALUATOR.outcomes(limited(min_accuracy=1.0)))

        assert cheapest(outcome) is None
        assert outcome.missed["min-accuracy"].all()


class TestBounds:
    def test_an_accuracy_above_every_model_names_the_best(self) -> None:
        case = limited(min_accuracy=0.999)

        assert "no placement reaches min-accuracy 0.999: the best is 0.9" in because(
            EVALUATOR, case
        )
        (one,) = relaxations(EVALUATOR, case)
        assert one.knob.name == "min-accuracy"

    def test_a_budget_below_the_round_trip_leaves_the_device(self) -> None:
        assert best(limited(budget_ms=3.0, min_accuracy=0.7)).name == "small@camera"

    def test_a_budget_that_nothing_keeps_is_relaxed(self) -> None:
        found = {
            one.knob.name: one.value for one in relaxations(EVALUATOR, limited(budget_ms=0.01))
        }

        assert found["budget-ms"] > 1

    def test_limits_that_exclude_one_another_are_told_so(self) -> None:
        case = limited(residency="device", min_accuracy=0.95, budget_ms=8.0)

        assert because(EVALUATOR, case) == (
            "each limit can be kept, but not all of them by one placement"
        )
        assert "residency" not in {one.knob.name for one in relaxations(EVALUATOR, case)}

    def test_the_residency_may_give_way(self) -> None:
        (device, *rest) = PLACES
        case = replace(
            limited(residency="device", min_accuracy=0.85),
            places=(replace(device, memory_bytes=1.0), *rest),
        )

        found = {one.knob.name: one.knob.told(one.value) for one in relaxations(EVALUATOR, case)}

        assert found == {"residency": "region", "memory-bytes camera": "1e+08"}

    def test_no_limit_helps_where_nothing_can_run(self) -> None:
        models = tuple(replace(one, latency={}) for one in CASE.models)
        case = replace(CASE, models=models)

        assert because(EVALUATOR, case).startswith("no model can run at a place")
        assert relaxations(EVALUATOR, case) == []

    def test_lossy_links_cannot_be_relaxed_by_a_budget(self) -> None:
        (camera, *rest) = PLACES
        links = tuple(replace(one, loss_share=0.5) for one in LINKS)
        case = replace(CASE, places=(replace(camera, memory_bytes=1.0), *rest), links=links)

        assert {one.knob.name for one in relaxations(EVALUATOR, case)} == {"memory-bytes camera"}
        cloud_only = (replace(CASE.models[0], latency={"cloud": spread(1.0)}),)
        alone = replace(case, places=PLACES, models=cloud_only)
        assert because(EVALUATOR, alone).startswith("no model can run at a place")

    def test_a_limit_that_nothing_keeps_alone_has_no_best(self) -> None:
        """A link that loses half of all exchanges keeps no budget at all, whatever it is."""
        links = tuple(replace(one, loss_share=0.5) for one in LINKS)
        camera_only = tuple(
            replace(one, latency={"camera": spread(50.0)} | ({"cloud": spread(1.0)} if at else {}))
            for at, one in enumerate(CASE.models[:2])
        )
        case = replace(limited(min_accuracy=0.9), links=links, models=camera_only)

        assert "budget-ms" not in {one.knob.name for one in relaxations(EVALUATOR, case)}

    def test_machines_and_cost_and_updates_are_limits_as_well(self) -> None:
        tight = limited(max_cost_per_million=1e-6, max_update_s=1e-6)
        names = {knob.name for knob in limits_of(tight)}

        assert {"max-cost-per-million", "max-update-s", "max-machines camera"} <= names
        assert "max-leaving-share" not in names

    def test_break_even_values_are_where_the_recommendation_changes(self) -> None:
        case = replace(limited(min_accuracy=0.9), models=CASE.models[1:], places=PLACES[:2],
                       links=LINKS[:1])  # fmt: skip
        choice = best(case)

        found = sensitivity(EVALUATOR, case, choice)

        assert found
        distances = [abs(math.log(one.value / one.now)) for one in found]
        assert distances == sorted(distances)
        knobs = {knob.name: knob for knob in inputs_of(case)}
        for one in found:
            after = recommend(EVALUATOR, knobs[one.name].put(one.value))
            assert one.then == ("" if after is None else after.name)
            back = math.exp(-2e-3 if one.value > one.now else 2e-3)
            before = recommend(EVALUATOR, knobs[one.name].put(one.value * back))
            assert before is not None
            assert before.name == choice.name

    def test_every_input_can_be_turned(self) -> None:
        for knob in inputs_of(CASE):
            changed = knob.put(knob.value * 2)
            assert changed != CASE
            same = {other.name: other.value for other in inputs_of(changed)}
            assert same[knob.name] == pytest.approx(knob.value * 2, rel=1e-6)

    def test_a_place_without_known_memory_refuses_no_model(self) -> None:
        (camera, *rest) = PLACES
        case = replace(CASE, places=(replace(camera, memory_bytes=0.0), *rest))

        assert "memory-bytes camera" not in {knob.name for knob in limits_of(case)}
        outcome = next(EVALUATOR.outcomes(case))
        assert not outcome.missed["memory-bytes camera"].any()


class TestTerms:
    def cascade(self) -> Choice:
        return best(limited(min_accuracy=0.93, max_leaving_share=0.5))

    def test_stops_are_tiers(self) -> None:
        names = {describe(option): tiers_of(option) for option in options(CASE)}

        assert names["small@camera > middle@gateway > large@region"] == (
            Tier.EDGE, Tier.REGIONAL, Tier.REGIONAL_2,
        )  # fmt: skip
        assert names["small@gateway > large@cloud"] == (Tier.REGIONAL, Tier.CLOUD)
        assert names["small@gateway > large@region"] == (Tier.REGIONAL, Tier.REGIONAL_2)

    def test_a_call_has_a_price(self) -> None:
        choice = self.cascade()

        terms = terms_of(CASE, choice, "trace.csv", {"small": "a", "middle": "b", "large": "c"})

        assert list(terms.prices) == [tier.value for tier in tiers_of(choice.outcome.option)]
        assert list(terms.prices.values()) == call_prices(CASE, choice.outcome.option)
        assert terms.models.keys() == terms.prices.keys()
        assert 0 < terms.predicted_cost < 1
        assert sum(terms.predicted_shares.values()) == pytest.approx(1)
        assert terms_of(CASE, choice, "trace.csv").models == {}

    def test_one_tier_needs_no_policy(self) -> None:
        with pytest.raises(PolicyError, match="is one tier"):
            terms_of(CASE, best(limited(min_accuracy=0.5)), "trace.csv")

    def test_a_free_top_tier_needs_no_policy(self) -> None:
        places = tuple(replace(one, price_per_hour=0.0, busy_w=0.0) for one in PLACES)
        links = tuple(replace(one, price_per_gb=0.0) for one in LINKS)
        case = replace(
            limited(min_accuracy=0.93, max_leaving_share=0.5), places=places, links=links
        )

        with pytest.raises(PolicyError, match="costs nothing"):
            terms_of(case, best(case), "trace.csv")

    def test_round_trips_are_of_each_stop_above_the_first(self) -> None:
        option = next(one for one in options(CASE) if len(one) == 3)

        assert round_trips_ms(CASE, option).shape == (1000, 2)


def test_one_of_each_placement_is_its_cheapest() -> None:
    found = front(EVALUATOR, CASE)

    each = one_of_each(found)

    names = [one.name for one in each]
    assert len(names) == len(set(names))
    for one in each:
        assert one.cost == min(other.cost for other in found if other.name == one.name)
