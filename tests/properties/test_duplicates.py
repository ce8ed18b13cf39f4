"""The window of recent requests beside a model: one computation an id, every asker answered."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.core.duplicates import (
    MAX_ATTEMPTS_KEPT,
    Arrival,
    RecentRequests,
    RequestKey,
)

ids = st.sampled_from(("a", "b", "c"))
correlations = st.binary(min_size=1, max_size=1)


def key(request_id: str, asker: str = "agent", content: bytes = b"") -> RequestKey:
    return RequestKey(asker, request_id, content)


class DuplicatesMachine(RuleBasedStateMachine):
    """Requests arrive, arrive again, finish and are given up, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: RecentRequests[str] = RecentRequests(100, 10_000)
        self.waiting: dict[str, list[bytes]] = {}
        self.replies: dict[str, str] = {}

    @rule(request_id=ids, correlation=correlations)
    def arrive(self, request_id: str, correlation: bytes) -> None:
        arrival, reply = self.recent.arrive(key(request_id), correlation)

        known = self.waiting.get(request_id)
        if known is None:
            assert (arrival, reply) == (Arrival.FRESH, None)
            self.waiting[request_id] = [correlation]
        elif correlation in known or len(known) >= MAX_ATTEMPTS_KEPT:
            assert (arrival, reply) == (Arrival.COPY, None)
        elif request_id in self.replies:
            assert (arrival, reply) == (Arrival.REPEATED, self.replies[request_id])
            known.append(correlation)
        else:
            assert (arrival, reply) == (Arrival.JOINED, None)
            known.append(correlation)

    @rule(request_id=ids)
    def finish(self, request_id: str) -> None:
        told = self.recent.finish(key(request_id), f"reply to {request_id}", 10)

        if request_id in self.waiting and request_id not in self.replies:
            assert told == self.waiting[request_id]
            self.replies[request_id] = f"reply to {request_id}"
        else:
            assert told == []

    @rule(request_id=ids)
    def abandon(self, request_id: str) -> None:
        told = self.recent.abandon(key(request_id))

        is_open = request_id in self.waiting and request_id not in self.replies
        assert told == (self.waiting[request_id] if is_open else [])
        self.waiting.pop(request_id, None)
        self.replies.pop(request_id, None)

    @rule(request_id=ids, correlation=correlations)
    def withdraw(self, request_id: str, correlation: bytes) -> None:
        is_over = self.recent.withdraw(key(request_id), correlation)

        known = self.waiting.get(request_id, [])
        is_waiting = correlation in known and request_id not in self.replies
        assert is_over == (is_waiting and known == [correlation])
        if is_waiting:
            known.remove(correlation)
        if is_over:
            del self.waiting[request_id]

    @invariant()
    def knows_what_it_should(self) -> None:
        assert len(self.recent) == len(self.waiting)
        assert self.recent.num_bytes == 10 * len(self.replies)


TestRecentRequests = DuplicatesMachine.TestCase


def test_the_oldest_finished_requests_are_forgotten_first() -> None:
    recent: RecentRequests[str] = RecentRequests(2, 1000)
    for request_id in ("running", "old", "newer"):
        recent.arrive(key(request_id), b"1")
        if request_id != "running":
            recent.finish(key(request_id), "done", 1)

    recent.arrive(key("newest"), b"1")

    assert recent.arrive(key("running"), b"1")[0] is Arrival.COPY
    assert recent.arrive(key("old"), b"1")[0] is Arrival.FRESH


def test_replies_are_kept_within_their_bytes() -> None:
    recent: RecentRequests[str] = RecentRequests(1000, 250)
    for number in range(10):
        recent.arrive(key(f"{number}"), b"1")
        recent.finish(key(f"{number}"), "done", 100)

    assert recent.num_bytes == 200
    assert recent.arrive(key("9"), b"2") == (Arrival.REPEATED, "done")
    assert recent.arrive(key("7"), b"2")[0] is Arrival.FRESH


def test_two_askers_may_use_the_same_id_and_one_asker_for_two_contents() -> None:
    recent: RecentRequests[str] = RecentRequests(10, 1000)

    arrivals = [
        recent.arrive(key("1", asker, content), b"1")[0]
        for asker, content in (("agent-1", b"a"), ("agent-2", b"a"), ("agent-1", b"b"))
    ]

    assert arrivals == [Arrival.FRESH] * 3
