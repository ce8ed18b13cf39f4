"""Every way to place the models.

An option is a chain of models, each at a place further up than the one before. With at most 8
models and 16 places all of them are tried: there is no need to guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.core.placement.case import Case, Kind, Link, Model, Place
from runtime.core.placement.travel import Ways, paths


@dataclass(frozen=True, slots=True)
class Stop:
    """A model at a place, and the links that lead there from the stop before."""

    model: Model
    place: Place
    path: tuple[Link, ...]


Option = tuple[Stop, ...]


def describe(option: Option) -> str:
    """``model@place > model@place``."""
    return " > ".join(f"{stop.model.name}@{stop.place.name}" for stop in option)


def options(case: Case) -> Iterator[Option]:
    """All chains; requests start on a device, also where its first model is further up."""
    return _grown(case, paths(case), (), 0)


def _grown(case: Case, ways: Ways, chain: Option, first_model: int) -> Iterator[Option]:
    if chain:
        yield chain
    for index in range(first_model, len(case.models)):
        model = case.models[index]
        for place in case.places:
            if place.name not in model.latency:
                continue
            for path in _ways_to(case, ways, chain, place):
                yield from _grown(case, ways, (*chain, Stop(model, place, path)), index + 1)


def _ways_to(case: Case, ways: Ways, chain: Option, place: Place) -> Iterator[tuple[Link, ...]]:
    """From the stop before, or from each kind of device."""
    if not chain and place.kind is Kind.DEVICE:
        yield ()
        return
    before = [chain[-1].place] if chain else [p for p in case.places if p.kind is Kind.DEVICE]
    for start in before:
        # Links lead upwards, so there is no way down or to the same height.
        if (start.name, place.name) in ways:
            yield ways[start.name, place.name]


def way_down(case: Case, ways: Ways, place: Place) -> tuple[Link, ...]:
    """The links that a new version takes from the highest place that is connected."""
    heights = {one.name: one.kind.height for one in case.places}
    found = [(heights[end], way) for (start, end), way in ways.items() if start == place.name]
    return max(found, key=lambda one: one[0], default=(0, ()))[1]
