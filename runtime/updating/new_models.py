"""What a process answers with, and who exchanges that for something newer.

Who takes no new models does without the libraries for them: they are imported where they are
needed.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from runtime.adapters.metrics import TierMetrics
from runtime.errors import StartError
from runtime.exchange.assembly import Assembly
from runtime.exchange.serving import Serving
from runtime.exchange.station import Load
from runtime.ports import Clock, MessageBus
from runtime.updating.place import Place

if TYPE_CHECKING:
    from runtime.updating.candidate import OpenCandidate
    from runtime.updating.early_model import EarlyModel
    from runtime.updating.fetching import Sources
    from runtime.updating.shelf import Shelf
    from runtime.updating.updater import Updater


class NewModels:
    """The models of a process; ``load``, then ``serve``.

    Args:
        place: where they arrive.
        clock: of the process.
        metrics: of the process.
        sources: instead of the catalogue that the settings name.
        open_candidate: loads new models to try them, instead of a process for each.
    """

    def __init__(
        self,
        place: Place,
        clock: Clock,
        metrics: TierMetrics,
        *,
        sources: Sources | None = None,
        open_candidate: OpenCandidate | None = None,
    ) -> None:
        self._place, self._clock, self._metrics = place, clock, metrics
        self._sources, self._open_candidate = sources, open_candidate
        self._shelf: Shelf | None = None
        self.updater: Updater | None = None
        self._early: EarlyModel | None = None
        self._follows: tuple[Assembly, Serving] | None = None
        self._following: asyncio.Task[None] | None = None

    def loader(self, stack: AsyncExitStack) -> Load | None:
        """What loads the model to begin with; None: it is that of the settings.

        To be called before anything else of the process is opened, with what closes it all.
        """
        if self._place.model.early_folder:
            return self._open_early()
        if not self._place.updates.url:
            return None
        from runtime.updating.shelf import Shelf  # noqa: PLC0415

        self._shelf = shelf = Shelf(self._place, self._clock, self._metrics)
        # After everything else: only then it is known that the end was one on purpose.
        stack.callback(shelf.stop)
        return shelf.load

    def _open_early(self) -> Load:
        if self._place.updates.url:
            raise StartError(
                "model.early_folder does not go together with taking new models: a device that "
                "does starts with what it has confirmed"
            )
        from runtime.updating.early_model import EarlyModel  # noqa: PLC0415

        self._early = EarlyModel(self._place, self._clock, self._metrics)
        return self._early.load

    def listen(self, bus: MessageBus) -> None:
        """Hears what is assigned; before the bus starts."""
        if self.updater is not None:
            self.updater.listen(bus)

    def start(self) -> None:
        """Begins with all that exchanges what answers."""
        if self.updater is not None:
            self.updater.start()
        if self._early is not None and self._follows is not None:
            self._following = asyncio.create_task(
                self._early.follow(*self._follows), name="model.follow"
            )

    async def close(self) -> None:
        """Ends it."""
        if self._following is not None:
            self._following.cancel()
            # A model that is just being loaded is closed as soon as it is there.
            await asyncio.wait([self._following])
        if self.updater is not None:
            await self.updater.close()

    def serve(self, assembly: Assembly) -> Serving:
        """What answers first, and the ``updater`` that exchanges it for something newer.

        Raises:
            StartError: the root of the catalogue cannot be read, or a URL is none.
        """
        shelf = self._shelf
        if shelf is None or shelf.first is None:
            parts = assembly.parts
            serving = Serving(assembly.build(parts.model, parts.gearbox), assembly.switch)
            self._follows = assembly, serving
            return serving
        from runtime.updating.wiring import sources_of, updater_of, watched  # noqa: PLC0415

        serving = Serving(watched(assembly, shelf.first), assembly.switch)
        self.updater = updater_of(
            self._place,
            assembly,
            shelf,
            serving,
            sources=self._sources or sources_of(self._place.updates),
            open_candidate=self._open_candidate,
        )
        return serving
