"""Obeys operators' overrides: before a model is asked, on what it gives, and on what goes out.

An audit is about what the models say by themselves, so nothing is overridden for it.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from runtime.adapters.metrics import TierMetrics
from runtime.core.overrides import PREFIX, adjusted, notice_of, ruling_of, treated
from runtime.core.rules import Ruling
from runtime.exchange.context import context_of
from runtime.exchange.ruling import one_hot
from runtime.exchange.stopping import StopSwitch
from runtime.local_model import LocalModel, LocalResult
from runtime.messages import (
    Answer,
    Guarantee,
    InferenceRequest,
    Outcome,
    Override,
    Reason,
    Tier,
)


class Overrider:
    """Overrides of one model at one process; without a switch there are none."""

    def __init__(
        self, switch: StopSwitch | None, model: LocalModel, tier: Tier, metrics: TierMetrics
    ) -> None:
        self._switch, self._model, self._metrics = switch, model, metrics
        self._labels = model.manifest.labels
        self._tiers = tuple(one for one in Tier if one.height >= tier.height)

    def _in_force(self, request: InferenceRequest) -> tuple[Override, ...]:
        manifest = self._model.manifest
        if self._switch is None or request.audit or manifest.task != "classification":
            return ()
        return self._switch.overrides_of(manifest)

    def ruling(self, request: InferenceRequest) -> Ruling | None:
        """What a pin, or a tier that is to answer, makes of a request that begins here."""
        overrides = self._in_force(request)
        if not overrides or request.hop:
            return None
        found = ruling_of(overrides, context_of(request), self._labels, self._tiers)
        if found is None:
            return None
        ruling, by = found
        self._metrics.count_override(by.kind.value)
        return ruling

    def adjusted(self, request: InferenceRequest, result: LocalResult) -> LocalResult | Reason:
        """The result of our own model after bans and boosts; why there is none where none is left.

        The confidence is that of the new scores: what was sure of a banned label no longer is.
        """
        overrides = self._in_force(request)
        if not overrides:
            return result
        name = self._model.manifest.outputs[0].name
        found = adjusted(result.outputs[name], self._labels, overrides)
        if found is None:
            return result
        for one in found.by:
            self._metrics.count_override(one.kind.value)
        if found.is_empty:
            return Reason.OVERRIDE
        return replace(
            result,
            outputs={**result.outputs, name: found.scores},
            confidence=self._model.confidence(found.scores, result.confidence.agreement),
            overrides=tuple(one.id for one in found.by),
        )

    def ended(self, request: InferenceRequest, answer: Answer) -> Answer:
        """The answer as it goes out, with what has changed it."""
        overrides = self._in_force(request)
        if not overrides:
            return answer
        by: list[Override] = []
        if answer.has_answer and answer.label is not None and answer.outputs:
            answer, by = self._without_banned(answer, overrides)
        if answer.has_answer and answer.label is not None:
            found = treated(answer.label, answer.confidence, self._labels, overrides)
            if found is not None:
                by += found.by
                answer = self._labelled(answer, found.label)
        for one in by:
            self._metrics.count_override(one.kind.value)
        first, *others = answer.hops
        ids = {one.id for one in by} | set(first.overrides)
        if first.rule.startswith(PREFIX):
            ids.add(first.rule.removeprefix(PREFIX))
        if not ids:
            return answer
        told = [one for one in overrides if one.id in ids]
        hop = msgspec.structs.replace(first, overrides=tuple(one.id for one in told))
        notices = filter(None, (answer.notice, notice_of(told)))
        return msgspec.structs.replace(
            answer,
            hops=(hop, *others),
            guarantee=Guarantee.NONE,
            notice="; ".join(notices)[:1024],
        )

    def _without_banned(
        self, answer: Answer, overrides: tuple[Override, ...]
    ) -> tuple[Answer, list[Override]]:
        """An answer from above is made by models that may not be within the scope."""
        name = self._model.manifest.outputs[0].name
        scores = answer.outputs.get(name)
        if answer.tier is answer.hops[0].tier or scores is None:
            # Our own model's, which has been adjusted, or a pin's.
            return answer, []
        found = adjusted(scores, self._labels, overrides)
        if found is None:
            return answer, []
        if found.is_empty:
            return self._labelled(answer, None), list(found.by)
        label = int(np.argmax(found.scores[0]))
        if label == answer.label:
            return answer, []
        confidence = self._model.confidence(found.scores, 1.0)
        changed = msgspec.structs.replace(
            answer,
            label=label,
            label_name=self._labels[label],
            confidence=confidence.probability if confidence.is_valid else None,
            outputs={**answer.outputs, name: found.scores},
        )
        return changed, list(found.by)

    def _labelled(self, answer: Answer, label: int | None) -> Answer:
        if label is None:
            return msgspec.structs.replace(
                answer,
                outcome=Outcome.ABSTAINED,
                reason=Reason.OVERRIDE,
                tier=None,
                label=None,
                label_name="",
                confidence=None,
                outputs={},
                result="",
            )
        if label == answer.label:
            return answer
        given = one_hot(self._model.manifest, label, 1)
        outputs = {name: given.get(name, array) for name, array in answer.outputs.items()}
        return msgspec.structs.replace(
            answer, label=label, label_name=self._labels[label], outputs=outputs
        )
