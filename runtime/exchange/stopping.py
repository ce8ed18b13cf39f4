"""Hears what operators stop, remembers it over restarts, and says whether this process may answer.

Rules of this file:
  * what was heard counts at once and is written to disk at once, and holds without a network;
  * after every (re)connect nothing is answered before what is retained has been heard: we subscribe
    first and then speak to ourselves at the same QoS, and a broker sends in order (MQTT 5, 4.6).
    The wait is bounded; after it, what was latched counts, and that is counted;
  * when the latch is damaged nobody knows what had been stopped: nothing is answered until the
    broker has said it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from runtime import topics
from runtime.adapters.control_latch import ControlLatch
from runtime.adapters.metrics import TierMetrics
from runtime.core import control
from runtime.core.control import Known, Subject
from runtime.core.overrides import HeardOverrides, notice_of
from runtime.deadline import Deadline
from runtime.errors import ArtifactError, NotConnectedError, StoppedError
from runtime.exchange.course import Identity
from runtime.manifest import ModelManifest
from runtime.messages import (
    Birth,
    ControlState,
    Override,
    Stop,
    StopMode,
    StopScope,
    Tier,
    decode_control,
)
from runtime.ports import Clock, Message, MessageBus

# One request waits no longer for what is retained, and all of a connection together no longer.
REQUEST_WAIT_MS = 200.0
CONNECTION_WAIT_S = 1.0
MAX_LOGGED = 8
DAMAGED = "what was stopped before cannot be read from disk; it is known again once connected"
_log = structlog.get_logger()


class StopSwitch:
    """What is stopped, as one process knows it. Lives on the event loop of its bus."""

    def __init__(
        self,
        identity: Identity,
        manifest: ModelManifest,
        *,
        latch: ControlLatch,
        clock: Clock,
        metrics: TierMetrics,
    ) -> None:
        self._identity, self._clock, self._metrics, self._latch = identity, clock, metrics, latch
        self._subject = Subject(identity.region, identity.site, manifest.name, manifest.version)
        self._bus: MessageBus | None = None
        self._token = b""
        self._heard = asyncio.Event()
        self._patient_until_s: float | None = None
        self._watchers: list[Callable[[], None]] = []
        self._writing: asyncio.Task[None] | None = None
        self._is_latched = True
        # What the broker retains, as far as this connection has shown it.
        self.retained: dict[str, ControlState] = {}
        latched = latch.read()
        self.known: Known = latched or {}
        self._overrides = HeardOverrides(self.known, latch.read_heard(), clock.wall_s())
        self._is_lost = latched is None
        if self._is_lost:
            _log.critical("control.damaged", path=str(latch.path), meaning=DAMAGED)
        self._stop: Stop | None = None
        self._beside: Subject | None = None
        self._stop_beside: Stop | None = None
        self._weigh()

    @property
    def stop(self) -> Stop | None:
        """The stop that counts here now."""
        return self._stop

    @property
    def is_heard(self) -> bool:
        """Whether all that the broker retains has been heard over this connection."""
        return self._heard.is_set()

    def listen(self, bus: MessageBus) -> None:
        """Hears the control states of our region, and those of the regions above it."""
        region, site = self._identity.region, self._identity.site
        is_edge = self._identity.tier is Tier.EDGE
        sync = topics.agent_sync(region, site) if is_edge else topics.gateway_sync(region, site)
        self._bus = bus
        bus.subscribe(topics.control(region), self._on_control, qos=1)
        bus.subscribe(topics.control(region, "+"), self._on_control, qos=1)
        bus.subscribe(sync, self._on_sync, qos=1)
        bus.on_connection(lambda is_connected: self._on_connection(sync, is_connected=is_connected))

    def stop_of(self, manifest: ModelManifest) -> Stop | None:
        """The stop that counts here for one of the models that answer."""
        is_beside = self._beside is not None and self._beside.model_version == manifest.version
        return self._stop_beside if is_beside else self._stop

    def overrides_of(self, manifest: ModelManifest) -> tuple[Override, ...]:
        """What operators want otherwise of one of the models that answer, as of now."""
        if not self._overrides.heard:
            return ()
        return self._overrides.of(self._subject_of(manifest), self._clock.wall_s())

    def serves(self, manifest: ModelManifest, beside: ModelManifest | None = None) -> None:
        """Another model answers from now on; what is stopped by name is weighed anew.

        ``beside`` answers a share of the requests: each of the two is stopped by its own version.
        """
        self._subject = self._subject_of(manifest)
        self._beside = None if beside is None else self._subject_of(beside)
        self._weigh()

    def _subject_of(self, manifest: ModelManifest) -> Subject:
        identity = self._identity
        return Subject(identity.region, identity.site, manifest.name, manifest.version)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Calls ``watcher`` after everything that was heard from the broker."""
        self._watchers.append(watcher)

    async def heard(self, deadline: Deadline, *, reserve_ms: float) -> None:
        """Waits until what is retained has been heard, as long as a request may wait for that."""
        if self._bus is None or self._heard.is_set() or not self._bus.is_connected:
            return
        now_s = self._clock.monotonic_s()
        if self._patient_until_s is None:
            self._patient_until_s = now_s + CONNECTION_WAIT_S
        # Half of what is left stays for the answer, and for asking above.
        spare_ms = (deadline.remaining_ms(now_s) - reserve_ms) / 2
        wait_s = min(REQUEST_WAIT_MS, spare_ms) / 1000
        wait_s = min(wait_s, self._patient_until_s - now_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                await self._heard.wait()
        if not self._heard.is_set():
            self._metrics.count_control("unheard")

    def check_asker(self, asker: str) -> None:
        """Refuses what would not be answered here anyway.

        Raises:
            StoppedError: this process is stopped, or the one that asks is.
        """
        stop = self._stop
        if stop is None or stop.mode is not StopMode.STOP:
            stop = control.stops_asker(self.known, self._identity.region, asker)
        if stop is not None:
            raise StoppedError(control.told(stop))

    def take(self, state: ControlState) -> bool:
        """One more control state; whether it changed what is known."""
        known = control.apply(self.known, state)
        if known is self.known:
            self._metrics.count_control("stale")
            return False
        self.known = known
        self._overrides = HeardOverrides(known, self._overrides.heard, self._clock.wall_s())
        self._metrics.count_control("applied")
        _log.warning(
            "control.applied",
            origin=state.region,
            sequence=state.sequence,
            by=state.by,
            why=state.why,
            num_stops=len(state.stops),
            stops=[control.told(stop) for stop in state.stops[:MAX_LOGGED]],
            overrides=[notice_of([one]) for one in state.overrides[:MAX_LOGGED]],
        )
        self._weigh()
        self._save()
        return True

    def stated(self, birth: Birth) -> Birth:
        """A birth that says what is in force here."""
        sequences = {region: state.sequence for region, state in self.known.items()}
        mode = "" if self._stop is None else self._stop.mode.value
        return msgspec.structs.replace(birth, controls=sequences, stopped=mode)

    def shown(self) -> dict[str, Any]:
        """All of it as plain values, for people and monitors."""
        stop = self._stop
        return {
            "mode": None if stop is None else stop.mode.value,
            "notice": None if stop is None else control.told(stop),
            "is_known": not self._is_lost,
            "is_heard": self.is_heard,
            "is_latched": self._is_latched,
            "states": msgspec.to_builtins(list(self.known.values())),
        }

    async def close(self) -> None:
        """Waits for what is being written."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def _on_control(self, message: Message) -> None:
        if not message.payload:
            # Nobody resumes by clearing what is retained: whoever comes later would not know.
            _log.warning("control.cleared", topic=message.topic)
            self.retained.pop(topics.control_origin(message.topic), None)
            self._tell()
        elif (state := parse_state(message, self._metrics)) is not None:
            self.retained[state.region] = state
            self.take(state)
            self._tell()

    def _on_connection(self, sync: str, *, is_connected: bool) -> None:
        if not is_connected or self._bus is None:
            self._heard.clear()
            self._patient_until_s = None
            self.retained.clear()
            return
        self._token = uuid.uuid4().bytes
        with suppress(NotConnectedError):
            self._bus.publish(Message(sync, self._token, qos=1))

    def _on_sync(self, message: Message) -> None:
        if message.payload != self._token:
            return
        self._heard.set()
        if self._is_lost:
            self._is_lost = False
            _log.warning("control.known_again")
            self._weigh()
            self._save()
        elif not self._is_latched:
            self._save()
        self._tell()

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher()

    def _weigh(self) -> None:
        """Finds what counts for this process."""
        stop = control.verdict(self.known, self._subject)
        beside = control.verdict(self.known, self._beside) if self._beside else None
        if self._is_lost:
            now_s = self._clock.wall_s()
            beside = stop = Stop(StopScope.ALL, StopMode.STOP, DAMAGED, self._identity.site, now_s)
        self._stop, self._stop_beside = stop, beside
        self._metrics.set_stopped(None if stop is None else stop.mode)

    def _save(self) -> None:
        """Writes what is known, off the event loop; what comes meanwhile is written after it."""
        self._is_latched = False
        if self._writing is None or self._writing.done():
            loop = asyncio.get_running_loop()
            self._writing = loop.create_task(self._write(), name="control.latch")

    async def _write(self) -> None:
        written: Known | None = None
        while written is not self.known:
            written = self.known
            try:
                await asyncio.to_thread(self._latch.write, written, self._overrides.heard)
            except ArtifactError as error:
                # It counts all the same; what is lost is that a restart without a network knows.
                _log.error("control.not_latched", error=str(error))
                return
        self._is_latched = True


def parse_state(message: Message, metrics: TierMetrics) -> ControlState | None:
    """The control state in a message from a control topic; what is none is counted."""
    state = decode_control(message.payload)
    origin = topics.control_origin(message.topic)
    if isinstance(state, ControlState) and state.region == origin and control.is_usable(state):
        return state
    metrics.count_control("malformed")
    _log.warning("control.not_understood", topic=message.topic, num_bytes=len(message.payload))
    return None
