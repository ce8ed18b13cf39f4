"""The window of recent requests beside a model: one computation an id, every asker answered."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime.core.duplicates import MAX_ATTEMPTS_KEPT, Arrival, RecentRequests

ids = st.sampled_from(("a", "b", "c"))
correlations = st.binary(min_size=1, max_size=1)


class DuplicatesMachine(RuleBasedStateMachine):
    """Requests arrive, arrive again, finish and are given up, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: RecentRequests[str] = RecentRequests(100)
        self.waiting: dict[str, list[bytes]] = {}
        self.replies: dict[str, str] = {}

    @rule(request_id=ids, correlation=correlations)
    def arrive(self, request_id: str, correlation: bytes) -> None:
        arrival, reply = self.recent.arrive("agent", request_id, correlation)

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
        told = self.recent.finish("agent", request_id, f"reply to {request_id}")

        if request_id in self.waiting and request_id not in self.replies:
            assert told == self.waiting[request_id]
            self.replies[request_id] = f"reply to {request_id}"
        else:
            assert told == []

    @rule(request_id=ids)
    def abandon(self, request_id: str) -> None:
        self.recent.abandon("agent", request_id)
        self.waiting.pop(request_id, None)
        self.replies.pop(request_id, None)

    @invariant()
    def knows_what_it_should(self) -> None:
        assert len(self.recent) == len(self.waiting)


TestRecentRequests = DuplicatesMachine.TestCase


def test_the_oldest_finished_requests_are_forgotten_first() -> None:
    recent: RecentRequests[str] = RecentRequests(2)
    for request_id in ("running", "old", "newer"):
        recent.arrive("agent", request_id, b"1")
        if request_id != "running":
            recent.finish("agent", request_id, "done")

    recent.arrive("agent", "newest", b"1")

    assert recent.arrive("agent", "running", b"1")[0] is Arrival.COPY
    assert recent.arrive("agent", "old", b"1")[0] is Arrival.FRESH


def test_two_askers_may_use_the_same_id() -> None:
    recent: RecentRequests[str] = RecentRequests(10)

    first, second = (recent.arrive(asker, "1", b"1")[0] for asker in ("agent-1", "agent-2"))

    assert first is second is Arrival.FRESH
