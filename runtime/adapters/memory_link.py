"""A link of the in-memory bus: what is sent arrives later, lost, doubled, or not until it heals.

The faults stay within what the ``MessageBus`` port allows. Order is kept, as TCP keeps it. Only
QoS 0 is lost; a lost QoS 1 packet is sent again and so arrives later. Only QoS 1 is doubled. Time
is the time of the event loop, so a loop with simulated time runs the same code.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random as random_module
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class LinkFaults:
    """How bad a link is; each direction has these on its own.

    Attributes:
        delay_s: how long a packet travels.
        jitter_s: up to so much more, drawn for each packet; what comes behind waits.
        loss: the share of packets that get lost, below 1; a link that is down is a partition.
        duplication: the share of QoS 1 packets that arrive twice.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0

    def __post_init__(self) -> None:
        if self.delay_s < 0 or self.jitter_s < 0:
            raise ValueError("a packet does not arrive before it was sent")
        if not 0 <= self.loss < 1 or not 0 <= self.duplication <= 1:
            raise ValueError("loss is a share below 1, duplication a share up to 1")


class OneWay:
    """One direction of a link; carries calls, and makes them at the other end in order."""

    def __init__(self, faults: LinkFaults, random: random_module.Random) -> None:
        self._faults = faults
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._on_the_way: deque[tuple[float, Callable[[], None]]] = deque()
        self._handle: asyncio.Handle | None = None
        self._last_due_s = 0.0
        self._is_held = False
        self._is_cut = False

    def __len__(self) -> int:
        return len(self._on_the_way)

    def send(
        self, arrive: Callable[[], None], *, qos: int, lose: Callable[[], None] | None = None
    ) -> None:
        """Calls ``arrive`` when the packet gets there, or ``lose`` at once when it does not."""
        if self._is_cut:
            return
        faults, draw = self._faults, self._random.random
        travel_s = faults.delay_s + faults.jitter_s * (draw() if faults.jitter_s else 0.0)
        while faults.loss and draw() < faults.loss:
            if not qos:
                if lose is not None:
                    lose()
                return
            travel_s += 2 * faults.delay_s  # the sender notices after a round trip
        due_s = max(self._loop.time() + travel_s, self._last_due_s)
        self._last_due_s = due_s
        self._on_the_way.append((due_s, arrive))
        if qos and faults.duplication and draw() < faults.duplication:
            self._on_the_way.append((due_s, arrive))
        self._schedule()

    def hold(self) -> None:
        """Lets nothing arrive, and forgets nothing, until ``release``."""
        self._is_held = True
        self._cancel()

    def release(self) -> None:
        """Lets what was held arrive."""
        self._is_held = False
        self._schedule()

    def cut(self) -> None:
        """Forgets everything, and whatever is sent from now on."""
        self._is_cut = True
        self._on_the_way.clear()
        self._cancel()

    def _schedule(self) -> None:
        if self._handle is not None or self._is_held or not self._on_the_way:
            return
        due_s = self._on_the_way[0][0]
        # ``call_soon`` is first come, first served; timers of equal time are not.
        if due_s <= self._loop.time():
            self._handle = self._loop.call_soon(self._arrive)
        else:
            self._handle = self._loop.call_at(due_s, self._arrive)

    def _arrive(self) -> None:
        self._handle = None
        _, arrive = self._on_the_way.popleft()
        # Before the call, because it may hold or cut this very link.
        self._schedule()
        arrive()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
