"""What an agent answers with, and who exchanges that for something newer."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from edge_agent.late_answers import LateAnswers
from edge_agent.serving import Assembly, Serving
from edge_agent.settings import EdgeSettings
from runtime.adapters.metrics import TierMetrics
from runtime.exchange.course import Identity
from runtime.exchange.flow import RequestFlow
from runtime.ports import Clock

if TYPE_CHECKING:
    from edge_agent.updates.candidate import OpenCandidate
    from edge_agent.updates.fetching import Sources
    from edge_agent.updates.shelf import Shelf
    from edge_agent.updates.updater import Updater

# Who takes no new models does without the libraries for them: they are imported where they are
# needed.


class NewModels(LateAnswers):
    """The part of an ``Agent`` that knows which model answers."""

    def __init__(
        self,
        settings: EdgeSettings,
        identity: Identity,
        clock: Clock,
        metrics: TierMetrics,
        *,
        sources: Sources | None = None,
        open_candidate: OpenCandidate | None = None,
    ) -> None:
        super().__init__(settings, identity, clock, metrics)
        self._sources, self._open_candidate = sources, open_candidate
        self._serving: Serving | None = None
        self._updater: Updater | None = None

    @property
    def serving(self) -> Serving:
        """What answers.

        Raises:
            RuntimeError: the agent has not been entered.
        """
        if self._serving is None:
            raise RuntimeError("use the agent as: async with Agent(settings) as agent")
        return self._serving

    @property
    def flow(self) -> RequestFlow:
        """The request flow that the next request gets.

        Raises:
            RuntimeError: the agent has not been entered.
        """
        return self.serving.current.flow

    @property
    def updater(self) -> Updater | None:
        """Who takes new models; None where the settings name no place for them."""
        return self._updater

    def _open_shelf(self, stack: AsyncExitStack) -> Shelf | None:
        """The models of this device, where it takes new ones."""
        if not self.settings.updates.url:
            return None
        from edge_agent.updates.shelf import Shelf  # noqa: PLC0415

        shelf = Shelf(self.settings, self._clock, self.metrics)
        # After everything else: only then it is known that the end was one on purpose.
        stack.callback(shelf.stop)
        return shelf

    def _open_serving(self, assembly: Assembly, shelf: Shelf | None) -> Serving:
        """What answers first, and who exchanges it for something newer."""
        if shelf is None or shelf.first is None:
            parts = assembly.parts
            return Serving(assembly.build(parts.model, parts.gearbox), assembly.switch)
        from edge_agent.updates.wiring import sources_of, updater_of, watched  # noqa: PLC0415

        serving = Serving(watched(assembly, shelf.first), assembly.switch)
        self._updater = updater_of(
            assembly,
            shelf,
            serving,
            sources=self._sources or sources_of(self.settings),
            open_candidate=self._open_candidate,
        )
        return serving
