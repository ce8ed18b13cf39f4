"""Live control: which step of which gear follows from what was noted, and what is then promised."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gears import LOWER, STRAIGHT, gear, gearbox, policy, table, watched
from runtime.averages import Average
from runtime.core.gearbox import Engaged
from runtime.core.ladder import gear_named, label_under, ladder, step_of
from runtime.core.live import LiveControl, Standing, allowed_disagreement
from runtime.core.seen import Seen
from runtime.messages import Guarantee, Hop, Reason, Residency, Tier
from runtime.policy import Policy, Targets

NAMES = ("g", "g.safer-1", "g.safer-2")
RATE = 0.02
WATCHED = watched()
ONE_TABLE = gear(table("edge", to=("regional",)))


def engaged(standing: Standing, followed: Policy = WATCHED, **options: object) -> Engaged:
    """What the lowest tier makes of a request of one example."""
    box = gearbox(Tier.EDGE, followed)
    asked: dict[str, object] = {"remaining_ms": 100.0, "num_examples": 1} | options
    return box.engage("", standing=standing, **asked)  # type: ignore[arg-type]


def named(found: Engaged) -> str:
    return found.label.partition("/")[2]


def control(followed: Policy = WATCHED, rate: float = RATE) -> LiveControl:
    return LiveControl(followed, audit_rate=rate)


class TestLadder:
    def test_the_last_step_is_the_top_tier(self) -> None:
        steps = ladder(WATCHED.gears[0], WATCHED.targets)

        assert tuple(step.name for step in steps) == NAMES
        assert [len(step.tables) for step in steps] == [2, 1, 0]
        assert {step.guarantee for step in steps} == {Guarantee.CERTIFIED}
        assert [step_of(name) for name in NAMES] == [0, 1, 2]

    def test_a_gear_that_asks_the_top_tier_anyway_has_no_steps(self) -> None:
        assert ladder(STRAIGHT.gears[0], STRAIGHT.targets) == STRAIGHT.gears

    @pytest.mark.parametrize(
        "targets",
        [
            Targets(0.01, 0.1, max_late=0.1),
            Targets(0.01, 0.1, min_accuracy=0.9),
            Targets(0.01, 0.1, max_cost=0.5),
        ],
    )
    def test_what_was_not_tested_for_the_top_tier_is_not_promised(self, targets: Targets) -> None:
        steps = ladder(WATCHED.gears[0], targets)

        assert [step.guarantee for step in steps] == ["certified", "certified", "none"]

    def test_steps_are_found_by_name(self) -> None:
        steps = ladder(WATCHED.gears[0], WATCHED.targets)

        assert [gear_named(WATCHED, name) for name in NAMES] == list(steps)
        assert gear_named(WATCHED, "g.safer-3") is None
        assert [step_of(name) for name in ("g.safer-x", "g.safer-", "safer-1")] == [0, 0, 0]

    def test_the_upper_tiers_know_the_steps(self) -> None:
        below, above = gearbox(Tier.EDGE, WATCHED), gearbox(Tier.REGIONAL, WATCHED)

        for depth in range(3):
            told = below.engage(
                "", remaining_ms=100, num_examples=1, standing=Standing(depth=depth)
            ).travels
            found = above.engage(told, remaining_ms=50, num_examples=1, hop=1)
            assert found.gear is not None
            assert found.gear.name == NAMES[depth]
            assert found.label == told


class TestLabelUnderAGear:
    SURE, UNSURE = Seen(1, 0.9), Seen(2, 0.1)
    TIERS = ("edge", "regional", "cloud")

    def label(self, followed: Policy, **seen: Seen) -> int | None:
        return label_under(followed.gears[0], self.TIERS, seen)

    def test_what_is_sure_stands(self) -> None:
        assert self.label(WATCHED, edge=self.SURE) == 1

    def test_what_is_not_is_asked_further_as_far_as_it_is_known(self) -> None:
        assert self.label(WATCHED, edge=self.UNSURE) is None
        assert self.label(WATCHED, edge=self.UNSURE, regional=self.SURE) == 1
        assert self.label(watched(ONE_TABLE), edge=self.UNSURE, regional=self.UNSURE) == 2
        assert self.label(WATCHED, regional=self.SURE) is None

    def test_an_earlier_answer_may_stand(self) -> None:
        assert self.label(LOWER, edge=self.UNSURE, regional=Seen(1, 0.1)) == 2

    def test_without_tables_the_top_tier_answers(self) -> None:
        assert self.label(STRAIGHT, edge=self.SURE, cloud=Seen(0, 0.5)) == 0
        assert self.label(STRAIGHT, edge=self.SURE) is None

    def test_averages_are_not_among_what_was_seen(self) -> None:
        gears = tuple(
            msgspec.structs.replace(one, averages=(Average(("edge", "regional"), (0.5, 0.5)),))
            for one in WATCHED.gears
        )

        assert label_under(gears[0], self.TIERS, {"edge": self.SURE}) is None


class TestStanding:
    @given(st.floats(0, 1), st.integers(0, 20), st.integers(0, 9), st.booleans())
    def test_a_step_is_always_one_that_there_is(
        self, tau: float, depth: int, num_steps: int, can_ask_top: bool
    ) -> None:
        step = Standing(tau=tau, depth=depth, can_ask_top=can_ask_top).step(num_steps)

        assert 0 <= step <= num_steps
        assert can_ask_top or step <= max(0, num_steps - 1)

    @pytest.mark.parametrize(
        ("standing", "step"),
        [
            (Standing(), 0),
            (Standing(tau=0.33), 0),
            (Standing(tau=0.34), 1),
            (Standing(tau=0.66), 1),
            (Standing(tau=0.67), 2),
            (Standing(tau=1.0), 2),
            (Standing(depth=1), 1),
            (Standing(tau=0.5, depth=1), 2),
            (Standing(tau=1.0, depth=9), 2),
            (Standing(depth=2, can_ask_top=False), 1),
        ],
    )
    def test_tau_and_depth_choose_a_step(self, standing: Standing, step: int) -> None:
        assert named(engaged(standing)) == NAMES[step]

    def test_the_load_chooses_a_gear(self) -> None:
        loads = watched(
            gear(table("edge", to=("regional",)), name="x1"),
            gear(table("edge", to=("regional",)), name="x2", load=2.0),
        )

        assert [named(engaged(Standing(load=load), loads)) for load in (1.0, 2.0, 7.0)] == [
            "x1", "x2", "x1",
        ]  # fmt: skip

    def test_a_budget_below_every_gear_has_no_step_either(self) -> None:
        slow = watched(gear(table("edge", to=("regional",)), budget_ms=200.0))

        assert engaged(Standing(depth=1), slow).gear is None

    def test_while_it_lasts_the_promise_is_suspended(self) -> None:
        suspended = Standing(is_suspended=True)

        assert engaged(suspended).guarantee is Guarantee.SUSPENDED
        assert engaged(suspended, num_examples=2).guarantee is Guarantee.NONE
        assert engaged(Standing(tau=0.5)).guarantee is Guarantee.CERTIFIED


class TestControl:
    def test_it_stands_as_fitted_until_something_is_noted(self) -> None:
        assert control().standing(0.0) == Standing()

    def test_a_shift_of_scores_steps_safer_and_suspends(self) -> None:
        live = control()

        changed = [live.note_score(0.1) for _ in range(500)]

        assert changed == [*[False] * 499, True]
        assert live.standing(0.0) == Standing(depth=1, is_suspended=True)

    def test_without_a_reference_scores_say_nothing(self) -> None:
        live = control(watched(scores=None))

        assert not any(live.note_score(0.1) for _ in range(500))
        assert live.score_kind is None

    def test_slow_replies_choose_a_higher_load(self) -> None:
        fast, slow = (gear(table("edge", to=("cloud",)), name=f"x{n}", load=n) for n in (1.0, 2.0))
        live = control(watched(fast, slow))

        for _ in range(8):
            live.load.note_reply(0.0, 1.9, [Hop(Tier.REGIONAL, "s", "m", "1", Reason.UNSURE)])

        assert live.standing(0.0).load == 2.0
        assert live.standing(60.0).load == 1.0

    def test_what_may_not_reach_the_top_tier_does_not_go_to_the_last_step(self) -> None:
        live = control()

        assert live.standing(0.0, Residency.REGION) == Standing(can_ask_top=False)

    def test_audits_that_disagree_steer_towards_safety_and_back(self) -> None:
        live = control()

        for _ in range(10):
            live.note_audit("g", RATE, agrees=False)
        steered = live.standing(0.0)
        for _ in range(100_000):
            live.note_answer("g.safer-1", disagrees=False, is_auditable=False)

        assert steered.tau == pytest.approx(0.5)
        assert not steered.is_suspended
        assert live.standing(0.0) == Standing()

    def test_answers_that_nobody_could_check_change_nothing(self) -> None:
        live = control()
        live.note_audit("g", RATE, agrees=False)
        before = live.standing(0.0)

        live.note_answer("g", disagrees=None, is_auditable=False)
        live.note_answer("other", disagrees=True, is_auditable=True)
        live.note_audit("other", RATE, agrees=False)
        live.note_audit("g", 0.0, agrees=False)

        assert live.standing(0.0) == before

    def test_a_broken_promise_suspends_for_good(self) -> None:
        live = control()

        alarms = [live.note_audit("g", RATE, agrees=False) for _ in range(30)]

        assert alarms.count(True) == 1
        assert live.standing(0.0).is_suspended

    def test_safer_steps_do_not_hide_that_the_gear_is_outdated(self) -> None:
        live = control()
        seen = {"edge": Seen(1, 0.9), "cloud": Seen(2, 0.9)}

        for _ in range(5000):
            live.note_answer("g.safer-2", disagrees=False, is_auditable=False, seen=seen)
        is_alarm = live.note_audit("g.safer-1", RATE, agrees=True, seen=seen)

        assert is_alarm
        assert live.steering.tau == 0

    def test_where_it_is_not_known_what_the_gear_would_have_answered_it_is_not_blamed(self) -> None:
        live = control()

        live.note_answer("g.safer-2", disagrees=False, is_auditable=False)
        live.note_audit("g.safer-1", RATE, agrees=False)
        live.note_audit("g.safer-1", RATE, agrees=None, seen={"cloud": Seen(1, 0.5)})

        assert live.recalibration.wealth == 1

    def test_the_target_is_what_was_found_and_the_room_that_the_loss_had(self) -> None:
        (one,) = WATCHED.gears

        assert allowed_disagreement(one, 0.02) == pytest.approx(0.03)
        assert allowed_disagreement(one, 0.0) == pytest.approx(0.01)
        assert allowed_disagreement(msgspec.structs.replace(one, tables=()), 0.02) is None

    def test_a_policy_that_knows_nothing_of_its_fit_is_not_steered(self) -> None:
        live = control(policy(gear(table("edge", to=("regional",)))))

        live.note_audit("g", RATE, agrees=False)

        assert live.standing(0.0) == Standing()
