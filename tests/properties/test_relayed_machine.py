"""Two gateways, one region: whatever is lost, late, doubled or restarted, the newest one stays."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from runtime.core.relayed import Mark, Place, Relayed

PLACES = [Place("r", "one"), Place("r", "two")]
gateways = st.integers(min_value=0, max_value=1)
places = st.sampled_from(PLACES)
Said = tuple[Place, bytes]
NOBODY = -1


def seq_of(payload: bytes) -> int:
    return int(payload) if payload else 0


@dataclass
class Gateway:
    """With a connection up, one down, and what is on its way over each, in order."""

    relayed: Relayed = field(default_factory=Relayed)
    from_above: deque[Said] = field(default_factory=deque)
    heard_above: list[Said] = field(default_factory=list)
    # None: all that is retained was heard.
    from_here: deque[tuple[Place, bytes, int] | None] = field(default_factory=deque)
    to_here: deque[Said] = field(default_factory=deque)
    is_up: bool = True
    is_down: bool = True


class Region(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.above: dict[Place, bytes] = {}
        self.here: dict[Place, bytes] = {}
        self.number = dict.fromkeys(PLACES, 0)
        self.gateways = [Gateway(), Gateway()]
        # From then on a clearing may have been missed.
        self.is_smooth = True
        for one in self.gateways:
            self.connect_here(one)

    def connect_here(self, one: Gateway) -> None:
        one.relayed.lost()
        one.is_down = True
        one.from_here.clear()
        one.to_here.clear()
        one.from_here.extend([*((*said, NOBODY) for said in self.here.items()), None])

    def connect_above(self, one: Gateway) -> None:
        one.is_up = True
        one.from_above.clear()
        one.from_above.extend(self.above.items())

    def say(self, place: Place, payload: bytes) -> None:
        for one in self.gateways:
            if one.is_up:
                one.from_above.append((place, payload))

    @rule(place=places)
    def assign(self, place: Place) -> None:
        self.number[place] += 1
        self.above[place] = b"%d" % self.number[place]
        self.say(place, self.above[place])

    @rule(place=places)
    def clear(self, place: Place) -> None:
        self.above.pop(place, None)
        self.say(place, b"")

    @rule(number=gateways)
    def hear_above(self, number: int) -> None:
        one = self.gateways[number]
        if not one.from_above:
            return
        place, payload = one.from_above.popleft()
        one.heard_above.append((place, payload))
        if payload:
            one.relayed.above(place, payload, seq_of(payload))
        else:
            one.relayed.cleared_above(place)
        self.publish(one)

    @rule(number=gateways)
    def hear_here(self, number: int) -> None:
        one = self.gateways[number]
        if not one.from_here:
            return
        said = one.from_here.popleft()
        if said is None:
            one.relayed.all_heard()
        else:
            place, payload, by = said
            mark = Mark.of(seq_of(payload), payload) if payload else None
            one.relayed.here(place, mark, is_ours=by == number)
        self.publish(one)

    def publish(self, one: Gateway) -> None:
        if not one.is_down:
            return
        for place, payload in one.relayed.due():
            one.to_here.append((place, payload))
            one.relayed.sent(place)

    @rule(number=gateways)
    def arrive_here(self, number: int) -> None:
        one = self.gateways[number]
        if not one.to_here:
            return
        place, payload = one.to_here.popleft()
        if payload:
            self.here[place] = payload
        else:
            self.here.pop(place, None)
        for other in self.gateways:
            if other.is_down:
                other.from_here.append((place, payload, number))

    @rule(number=gateways, count=st.integers(min_value=1, max_value=4))
    def come_twice(self, number: int, count: int) -> None:
        """As after a connection that broke before it was acknowledged: again, in their order."""
        one = self.gateways[number]
        if one.is_up:
            one.from_above.extendleft(reversed(one.heard_above[-count:]))

    @rule(number=gateways)
    def lose_above(self, number: int) -> None:
        one = self.gateways[number]
        one.is_up, self.is_smooth = False, False
        one.from_above.clear()

    @rule(number=gateways)
    def find_above(self, number: int) -> None:
        if not self.gateways[number].is_up:
            self.connect_above(self.gateways[number])

    @rule(number=gateways)
    def lose_here(self, number: int) -> None:
        one = self.gateways[number]
        one.is_down = False
        one.relayed.lost()
        one.from_here.clear()
        one.to_here.clear()

    @rule(number=gateways)
    def find_here(self, number: int) -> None:
        if not self.gateways[number].is_down:
            self.connect_here(self.gateways[number])

    @rule(forgets=st.booleans())
    def restart_broker(self, forgets: bool) -> None:
        if forgets:
            self.here.clear()
        for number in range(2):
            self.lose_here(number)

    @rule(number=gateways)
    def restart(self, number: int) -> None:
        self.is_smooth = False
        one = self.gateways[number] = Gateway()
        self.connect_above(one)
        self.connect_here(one)

    def teardown(self) -> None:
        for number in range(2):
            self.find_above(number)
            self.find_here(number)
        for _ in range(20_000):
            if not any(one.from_above or one.from_here or one.to_here for one in self.gateways):
                break
            for number in range(2):
                self.hear_above(number)
                self.hear_here(number)
                self.arrive_here(number)
        else:
            raise AssertionError("they do not come to an end")

        for place in PLACES:
            if place in self.above:
                assert self.here.get(place) == self.above[place]
            elif self.is_smooth:
                assert place not in self.here
            else:
                assert seq_of(self.here.get(place, b"")) <= self.number[place]


TestRegion = Region.TestCase
TestRegion.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
