"""Which handlers hear which messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.adapters.message_rules import check_filter
from runtime.topics import matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runtime.ports import MessageHandler


class Subscription:
    """All handlers of one filter; ``identifier`` is how the broker names it back to us."""

    def __init__(self, topic_filter: str, identifier: int) -> None:
        self.topic_filter = topic_filter
        self.identifier = identifier
        self.qos = 0
        self.handlers: list[MessageHandler] = []


class Subscriptions:
    """The subscriptions of one bus, kept over reconnects."""

    def __init__(self) -> None:
        self._by_filter: dict[str, Subscription] = {}
        self._by_identifier: dict[int, Subscription] = {}

    def __iter__(self) -> Iterator[Subscription]:
        return iter(tuple(self._by_filter.values()))

    def add(self, topic_filter: str, handler: MessageHandler, qos: int) -> Subscription:
        """One more handler; a filter is subscribed to once, at the highest QoS asked for.

        Raises:
            ValueError: the filter is malformed, or the QoS is neither 0 nor 1.
        """
        check_filter(topic_filter, qos)
        wanted = self._by_filter.get(topic_filter)
        if wanted is None:
            # MQTT 5, 3.8.2.1.2: an identifier is never 0.
            wanted = Subscription(topic_filter, len(self._by_filter) + 1)
            self._by_filter[topic_filter] = wanted
            self._by_identifier[wanted.identifier] = wanted
        wanted.qos = max(wanted.qos, qos)
        wanted.handlers.append(handler)
        return wanted

    def handlers_of(self, topic: str, identifiers: Sequence[int]) -> list[MessageHandler]:
        """The handlers of the subscriptions that the broker names, else of all that match.

        A message under two overlapping filters comes twice. Only the names keep each copy with its
        own handlers, so that nobody hears a message twice.
        """
        named = [self._by_identifier[one] for one in identifiers if one in self._by_identifier]
        found = named or [one for one in self if matches(one.topic_filter, topic)]
        return [handler for one in found for handler in one.handlers]
