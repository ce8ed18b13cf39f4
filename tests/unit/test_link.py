import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.link import LinkEstimator, LinkSettings

SETTINGS = LinkSettings(prior_chance=0.5)
events = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 500), st.booleans()), max_size=30)


def _replay(estimator: LinkEstimator, history: list[tuple[float, float, bool]]) -> float:
    now_s = 0.0
    for wait_s, elapsed_ms, is_reply in history:
        now_s += wait_s
        if is_reply:
            estimator.note_reply(now_s, elapsed_ms)
        else:
            estimator.note_lost(now_s, elapsed_ms)
    return now_s


@given(events, st.floats(0.01, 500), st.floats(0, 500))
def test_the_chance_is_a_probability(
    history: list[tuple[float, float, bool]], remaining_ms: float, more_ms: float
) -> None:
    estimator = LinkEstimator(SETTINGS)
    now_s = _replay(estimator, history)

    chance = estimator.chance(now_s, remaining_ms)

    assert 0 <= chance <= 1
    assert estimator.chance(now_s, -more_ms) == 0


@given(st.lists(st.floats(0, 500), max_size=20), st.floats(1, 500), st.floats(0, 500))
def test_on_a_link_that_loses_nothing_more_time_is_never_worse(
    times_ms: list[float], remaining_ms: float, more_ms: float
) -> None:
    estimator = LinkEstimator(SETTINGS)
    now_s = _replay(estimator, [(0.01, elapsed_ms, True) for elapsed_ms in times_ms])

    shorter = estimator.chance(now_s, remaining_ms)
    longer = estimator.chance(now_s, remaining_ms + more_ms)

    assert longer >= shorter - 1e-12


def test_replies_in_time_open_the_gate_and_losses_close_it() -> None:
    estimator = LinkEstimator(SETTINGS)
    for number in range(20):
        estimator.note_reply(number * 0.1, 20)
    good = estimator.chance(2.0, 50)
    for number in range(20):
        estimator.note_lost(2.0 + number * 0.1, 50)

    bad = estimator.chance(4.0, 50)

    assert good > 0.9
    assert bad < 0.25


def test_few_observations_are_given_the_benefit_of_the_doubt_and_many_are_not() -> None:
    few, many = LinkEstimator(SETTINGS), LinkEstimator(LinkSettings(window=1000, half_life_s=1e6))
    for number in range(8):
        few.note_reply(number * 0.1, 20 if number % 2 else 80)
    for number in range(800):
        many.note_reply(number * 0.1, 20 if number % 2 else 80)

    assert 0.55 < few.chance(0.8, 50) < 0.9
    assert many.chance(80.0, 50) == pytest.approx(0.5, abs=0.05)


def test_silence_makes_nobody_more_hopeful() -> None:
    estimator = LinkEstimator(SETTINGS)
    for number in range(20):
        estimator.note_reply(number * 0.1, 20 if number % 2 else 80)
    soon = estimator.chance(2.0, 50)

    assert all(estimator.chance(2.0 + later_s, 50) <= soon + 0.05 for later_s in (1, 5, 60, 3600))


def test_a_closed_gate_stays_closed_while_nothing_is_heard() -> None:
    estimator = LinkEstimator(SETTINGS)
    for number in range(20):
        estimator.note_lost(number * 0.1, 50)

    assert estimator.chance(1000.0, 50) < 0.25


def test_one_probe_that_comes_back_opens_the_gate_again() -> None:
    estimator = LinkEstimator(SETTINGS)
    for number in range(20):
        estimator.note_lost(number * 0.1, 50)

    estimator.note_reply(10.0, 20)

    assert estimator.chance(10.0, 50) > 0.25


def test_a_slow_reply_counts_against_a_short_budget_only() -> None:
    estimator = LinkEstimator(SETTINGS)
    for _ in range(20):
        estimator.note_reply(1.0, 100)

    assert estimator.chance(1.0, 50) < 0.25
    assert estimator.chance(1.0, 150) > 0.9


def test_a_short_silence_says_little_about_a_longer_wait() -> None:
    estimator = LinkEstimator(SETTINGS)
    for _ in range(5):
        estimator.note_reply(1.0, 100)
    for _ in range(5):
        estimator.note_lost(1.0, 10)

    assert estimator.chance(1.0, 200) > estimator.chance(1.0, 10)


@pytest.mark.parametrize(("passed_s", "is_due"), [(0.1, False), (0.5, True)])
def test_a_probe_is_due_when_nothing_was_sent_for_a_while(
    passed_s: float,
    is_due: bool,
) -> None:
    estimator = LinkEstimator(SETTINGS)
    assert estimator.probe_is_due(0.0)

    estimator.note_sent(1.0)

    assert estimator.probe_is_due(1.0 + passed_s) == is_due


def test_a_late_reply_counts_for_longer_waits_from_then_on() -> None:
    estimator = LinkEstimator(SETTINGS)
    lost = [estimator.note_lost(1.0, 50) for _ in range(10)]
    before = estimator.chance(1.0, 100)
    for one in lost:
        estimator.note_late(one, 80)
        estimator.note_late(one, 500)

    assert estimator.chance(1.0, 60) < 0.25
    assert estimator.chance(1.0, 100) > max(before, 0.5)


def test_large_payloads_are_expected_to_take_longer() -> None:
    estimator = LinkEstimator(SETTINGS)
    for number in range(50):
        size = 100_000 if number % 2 else 1000
        estimator.note_reply(1.0, 20 + size / 1000, num_bytes=size)

    assert estimator.chance(1.0, 60, num_bytes=1000) > 0.9
    assert estimator.chance(1.0, 60, num_bytes=100_000) < 0.25
    assert estimator.chance(1.0, 130, num_bytes=100_000) > 0.9
    assert estimator.chance(1.0, 60, num_bytes=10_000_000) == 0
    small, large = (estimator.elapsed_ms(0.5, num_bytes=size) for size in (1000, 100_000))
    assert small == pytest.approx(21, abs=3)
    assert large == pytest.approx(120, abs=10)


def test_payloads_of_one_size_say_nothing_of_the_bandwidth() -> None:
    estimator = LinkEstimator(SETTINGS)
    for number in range(20):
        estimator.note_reply(1.0, 20 + number, num_bytes=1000 + number)
    estimator.note_reply(1.0, 500, num_bytes=100_000)

    assert estimator.chance(1.0, 60, num_bytes=1_000_000) > 0.9


def test_after_a_silence_the_usual_time_is_what_is_known() -> None:
    estimator = LinkEstimator(SETTINGS)
    for number in range(50):
        estimator.note_reply(number * 0.01, 40 + number % 5)

    long_after_s = 1000.0
    assert estimator.chance(long_after_s, 20) < 0.25
    assert estimator.chance(long_after_s, 200) > 0.9
    assert estimator.chance(long_after_s, 20) < estimator.chance(long_after_s, 45)


def test_the_way_is_what_the_work_above_did_not_take() -> None:
    estimator = LinkEstimator(SETTINGS)
    for number in range(20):
        estimator.note_reply(1.0, 50 + number, remote_ms=30)
    estimator.note_reply(1.0, 300)

    assert estimator.travel_ms(0.5) == pytest.approx(30, abs=2)
    assert estimator.elapsed_ms(0.95) == 300


def test_few_replies_are_no_quantile() -> None:
    estimator = LinkEstimator(SETTINGS)
    for _ in range(7):
        estimator.note_reply(1.0, 50, remote_ms=10)

    assert estimator.travel_ms(0.5) is None
    assert estimator.elapsed_ms(0.5) is None


def test_what_was_lost_in_an_outage_says_nothing_of_the_link_that_is_back() -> None:
    estimator = LinkEstimator(SETTINGS)
    for _ in range(20):
        estimator.note_reply(1.0, 20)
    for _ in range(60):
        estimator.note_lost(2.0, 50)
    closed = estimator.chance(2.0, 50)

    estimator.note_reply(2.1, 20)

    assert closed < 0.25
    assert estimator.chance(2.1, 50) > 0.5


def test_bad_luck_now_and_then_is_no_outage() -> None:
    estimator = LinkEstimator(SETTINGS)
    for _ in range(10):
        estimator.note_lost(1.0, 50)
        estimator.note_lost(1.0, 50)
        estimator.note_reply(1.0, 20)

    assert 0.2 < estimator.chance(1.0, 50) < 0.5


def _chance_of_a_story(start_s: float) -> float:
    estimator = LinkEstimator(SETTINGS)
    for number in range(400):
        at_s = start_s + number * 0.7
        if number % 3:
            estimator.note_reply(at_s, 20 + number % 40)
        else:
            estimator.note_lost(at_s, 50)
    return estimator.chance(start_s + 400 * 0.7, 50)


@pytest.mark.parametrize("start_s", [0.0, 99.5, 1e6])
def test_the_chance_is_the_same_whenever_it_all_began(start_s: float) -> None:
    assert _chance_of_a_story(start_s) == pytest.approx(_chance_of_a_story(7.0), rel=1e-6)


def test_the_latest_counts_most() -> None:
    estimator = LinkEstimator(SETTINGS)
    for _ in range(3):
        estimator.note_lost(1.0, 50)
    for number in range(3):
        estimator.note_reply(4.0 + number / 1000, 20)

    assert estimator.chance(4.1, 50) > 0.75


def test_a_time_of_long_ago_weighs_nothing() -> None:
    estimator = LinkEstimator(SETTINGS)
    for _ in range(50):
        estimator.note_reply(1.0, 20)
    for _ in range(10):
        estimator.note_lost(50_000.0, 50)

    assert estimator.chance(50_000.0, 40) < 0.25
