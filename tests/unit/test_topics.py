import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import topics

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(ids, ids, ids)
def test_a_request_topic_is_read_back(region: str, gateway: str, agent: str) -> None:
    direct = topics.parse_request_topic(topics.gateway_requests(region, gateway, agent))
    shared = topics.parse_request_topic(topics.any_requests(region, agent))

    assert direct == (region, gateway, agent)
    assert shared == (region, "", agent)


@given(ids, ids, ids)
def test_a_gateway_hears_its_requests_and_no_other(region: str, gateway: str, agent: str) -> None:
    mine = topics.gateway_requests(region, gateway)

    assert topics.matches(mine, topics.gateway_requests(region, gateway, agent))
    assert not topics.matches(mine, topics.gateway_requests(region, gateway + "x", agent))
    assert topics.matches(topics.any_requests_shared(region), topics.any_requests(region, agent))


@pytest.mark.parametrize(
    "topic", ["", "a/b", "tierwise/v1/r/gw/g/req", "tierwise/v1/r/gw/g/req/a/b", "x/v1/r/any/req/a"]
)
def test_other_topics_are_no_requests(topic: str) -> None:
    assert topics.parse_request_topic(topic) is None


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "-a", "a b", "a" * 65, "ü", "a\n"])
def test_an_id_that_would_break_a_topic_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="usable id"):
        topics.check_name(name)


@given(ids)
def test_a_usable_id_passes(name: str) -> None:
    assert topics.check_name(name) == name


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("$share/gw/a/+", "a/b", True),
    ],
)
def test_filters_match_as_the_standard_says(
    topic_filter: str,
    topic: str,
    expected: bool,
) -> None:
    assert topics.matches(topic_filter, topic) == expected


def test_a_state_topic_tells_whose_state_it_holds() -> None:
    assert topics.site_of_state(topics.gateway_state("r", "g1")) == "g1"
    assert topics.site_of_state(topics.any_requests("r", "a")) == ""
    assert topics.region_of_state(topics.agent_state("r", "a")) == "r"
    assert topics.region_of_state(topics.any_requests("r", "a")) == ""


@given(ids, ids, ids)
def test_an_assignment_topic_is_read_back(region: str, below: str, site: str) -> None:
    own = topics.parse_assignment_topic(topics.assignment(region, site))
    passed_on = topics.parse_assignment_topic(topics.assignment_below(region, below, site))

    assert own == (region, region, site)
    assert passed_on == (region, below, site)


@pytest.mark.parametrize(
    "topic", ["", "tierwise/v1/r/assign", "tierwise/v1/r/assign/a/b/c", "tierwise/v1/r/announce/a"]
)
def test_what_is_no_assignment_topic_is_none(topic: str) -> None:
    assert topics.parse_assignment_topic(topic) is None


def test_the_filters_of_all_regions_take_states_and_nothing_else() -> None:
    agents, others = topics.all_states()
    assert topics.matches(agents, topics.agent_state("r", "a"))
    assert topics.matches(others, topics.gateway_state("r", "g"))
    assert not topics.matches(agents, topics.gateway_state("r", "g"))
    assert not topics.matches(agents, topics.agent_sync("r", "a"))
    assert topics.matches(topics.all_controls(), topics.control("r"))
    assert not topics.matches(topics.all_controls(), topics.control("r", "above"))


def test_an_agents_state_is_told_from_a_gateways() -> None:
    assert topics.is_agent_state(topics.agent_state("agent", "a"))
    assert not topics.is_agent_state(topics.gateway_state("agent", "agent"))
    assert not topics.is_agent_state(topics.agent_sync("r", "a"))
    assert not topics.is_agent_state("state")
