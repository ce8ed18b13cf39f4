"""From CASE.toml to what is decided on: profiles, model folders, measurements and predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hardware_profiles.candidates import from_folder
from hardware_profiles.measurement import default_folder, read_all
from hardware_profiles.profile import Profile, tags_of
from hardware_profiles.registry import load_profiles, profile_named
from model_zoo.catalog import bundled_model
from model_zoo.policies.bundled import PRICES
from model_zoo.policies.collect import BUNDLED_PREFIX, collect, read_examples
from model_zoo.policies.prediction_files import read_predictions
from model_zoo.policies.predictions import Predictions
from runtime.adapters.engine_version import installed_engines
from runtime.core.fitting import MODEL_SHARE_OF_MEMORY, Device, Limits, refusals
from runtime.core.placement.case import (
    HOURS,
    Case,
    Kind,
    Link,
    Load,
    Model,
    Place,
    Spread,
    check_case,
)
from runtime.core.placement.case import Limits as PlaceLimits
from runtime.core.placement.curves import Answers
from runtime.errors import SettingsError
from runtime.messages import USUAL_TIERS
from runtime.settings_keys import nearest
from tierwise.placement.case_file import PARTS, CaseFile, ModelFile, PlaceFile, UseFile
from tierwise.placement.toml_file import read_toml

_MEGABIT = 1e6
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A case with what it was made from; ``notes`` say what a person should know of it."""

    file: CaseFile
    case: Case
    answers: Answers | None
    predictions: Predictions | None
    folders: dict[str, Path]
    notes: tuple[str, ...]


def load_case(path: Path, progress: Progress = lambda _d, _a, _w: None) -> Loaded:
    """Reads a case and all that it names; files are sought beside it.

    Raises:
        SettingsError: it is not usable; says which key and why.
        ArtifactError: a model folder is damaged.
        PolicyError: the predictions are not usable.
    """
    file = read_toml(path, CaseFile, PARTS)
    profiles = load_profiles()
    notes: list[str] = []
    measurements, complaints = read_all(default_folder())
    notes += complaints
    by_place = {
        one.name: profile_named(_beside(path, one.profile), profiles) for one in file.places
    }
    _check_names(file)
    predictions = _predictions(file, path, progress)
    folders = {
        one.name: bundled_model(one.bundled) if one.bundled else path.parent / one.folder
        for one in file.models
        if one.bundled or one.folder
    }
    models = []
    for one in file.models:
        latency, figures = {}, {}
        for place in file.places:
            if one.places and place.name not in one.places:
                continue
            profile = by_place[place.name]
            given = one.latency.get(place.name) or one.latency.get(profile.name)
            found = None
            if one.name in folders:
                found = from_folder(one.name, folders[one.name], profile, measurements)
                figures = {
                    "accuracy": found.accuracy,
                    "size_bytes": float(found.size_bytes),
                    "memory_bytes": float(found.memory.num_bytes),
                }
                lacks = refusals(found, _device(profile), Limits())
                if lacks and given is None and lacks[0].because == "lacks":
                    notes.append(f"{one.name} cannot run on {place.name}: {lacks[0].text}")
                    continue
            if given is not None:
                latency[place.name] = Spread(given.p50_ms, given.p99_ms)
            elif found is not None and found.latency is not None:
                low, high = found.latency.low_ms, found.latency.high_ms
                measured = found.latency.is_measured
                middle = low if measured else math.sqrt(low * high)
                latency[place.name] = Spread(middle, high, is_estimate=not measured)
                if not measured:
                    notes.append(
                        f"the latency of {one.name} on {place.name} is an estimate: "
                        f"{low:.3g} to {high:.3g} ms"
                    )
            else:
                notes.append(
                    f"{one.name} is not placed on {place.name}: no latency is known on "
                    f"{profile.name}"
                )
        models.append(_model(one, figures, latency, predictions, notes))
    case = Case(
        models=tuple(models),
        places=tuple(_place(one, by_place[one.name], file.use) for one in file.places),
        links=tuple(
            Link(
                lower=one.lower,
                upper=one.upper,
                rtt_ms=one.rtt_ms,
                jitter_ms=one.jitter_ms,
                bandwidth_bps=one.bandwidth_mbit_s * _MEGABIT,
                loss_share=one.loss_share,
                price_per_gb=one.price_per_gb,
                availability_share=one.availability_share,
            )
            for one in file.links
        ),
        load=_load(file.use),
        limits=_limits(file.use),
        max_utilization=file.use.max_utilization_share,
        price_per_kwh=file.use.price_per_kwh,
    )
    check_case(case)
    answers = None if predictions is None else Answers(predictions.score, predictions.correct)
    return Loaded(file, case, answers, predictions, folders, tuple(dict.fromkeys(notes)))


def _beside(path: Path, profile: str) -> str:
    return str(path.parent / profile) if profile.endswith(".toml") else profile


def _device(profile: Profile) -> Device:
    # As `tierwise hardware fit` has it: engines are supposed to be those of this host.
    engines = installed_engines()
    known = {name: version for name, version in engines.items() if name in profile.runtimes}
    return Device(tags_of(profile), profile.runtimes, known)


def _check_names(file: CaseFile) -> None:
    places = [one.name for one in file.places]
    profiles = [one.profile for one in file.places]
    for model in file.models:
        if sum(map(bool, (model.folder, model.bundled))) > 1:
            raise SettingsError(f"model {model.name}: give a folder or a bundled one, not both")
        for known, names in ((places, model.places), ([*places, *profiles], model.latency)):
            for name in names:
                if name not in known:
                    near = nearest(name, known)
                    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
                    raise SettingsError(f"model {model.name}: no place is {name!r}: {hint}")


def _predictions(file: CaseFile, path: Path, progress: Progress) -> Predictions | None:
    source = file.use.predictions
    if not source:
        return None
    if not source.startswith(BUNDLED_PREFIX):
        return read_predictions(path.parent / source)
    folders = {tier.value: bundled_model(tier) for tier in USUAL_TIERS}
    return collect(
        folders,
        read_examples(source),
        PRICES,
        progress=lambda tier, done, total: progress(done, total, f"predict: {tier}"),
    )


def _model(
    one: ModelFile,
    figures: dict[str, float | None],
    latency: dict[str, Spread],
    predictions: Predictions | None,
    notes: list[str],
) -> Model:
    given = {name: getattr(one, name) for name in ("accuracy", "size_bytes", "memory_bytes")}
    known = {name: figures.get(name) if value is None else value for name, value in given.items()}
    row = None
    if predictions is not None:
        name = one.predicted_as or one.name
        if name in predictions.tiers:
            row = predictions.tiers.index(name)
            known["accuracy"] = float(predictions.correct[row].mean())
        else:
            notes.append(f"{one.name} has no predictions: what it does in a cascade is an estimate")
    for name, value in known.items():
        if value is None:
            raise SettingsError(f"model {one.name} has no {name}: state it, or give its folder")
    return Model(
        name=one.name,
        accuracy=known["accuracy"] or 0.0,
        size_bytes=known["size_bytes"] or 0.0,
        memory_bytes=known["memory_bytes"] or 0.0,
        latency=latency,
        row=row,
    )


def _place(one: PlaceFile, profile: Profile, use: UseFile) -> Place:
    groups = {
        Kind.DEVICE: use.num_sites * use.devices_per_site,
        Kind.EDGE_SERVER: use.num_sites,
        Kind.REGION: 1,
        Kind.CLOUD: 1,
    }
    cores = profile.value("cores") or 1.0
    memory = one.memory_bytes if one.memory_bytes is not None else profile.value("memory_bytes")
    busy_w = one.busy_w if one.busy_w is not None else profile.value("max_w")
    idle_w = one.idle_w if one.idle_w is not None else profile.value("idle_w")
    return Place(
        name=one.name,
        kind=one.kind,
        num_groups=one.num_groups or groups[one.kind],
        price_per_hour=one.price_per_hour,
        memory_bytes=MODEL_SHARE_OF_MEMORY * (memory or 0.0),
        num_workers=one.num_workers or max(1, int(cores)),
        busy_w=busy_w or 0.0,
        idle_w=idle_w or 0.0,
        max_machines=one.max_machines or (1 if one.kind is Kind.DEVICE else 1000),
    )


def _load(use: UseFile) -> Load:
    by_hour = _by_hour(use)
    return Load(
        requests_per_s=tuple(one * use.num_sites for one in by_hour),
        request_bytes=use.request_bytes,
        reply_bytes=use.reply_bytes,
        updates_per_day=use.model_updates_per_day,
    )


def _by_hour(use: UseFile) -> Sequence[float]:
    if (use.requests_per_s is None) == (not use.requests_per_s_by_hour):
        raise SettingsError("give either requests_per_s or requests_per_s_by_hour")
    if use.requests_per_s is None:
        if use.daily_profile:
            raise SettingsError("daily_profile goes with requests_per_s, not with the hours")
        return _hours("requests_per_s_by_hour", use.requests_per_s_by_hour)
    if not use.daily_profile:
        return [use.requests_per_s]
    weights = _hours("daily_profile", use.daily_profile)
    total = math.fsum(weights)
    if not total > 0 or min(weights) < 0 or not math.isfinite(total):
        raise SettingsError("daily_profile has to be finite, at least 0, and not 0 all day")
    return [use.requests_per_s * one * HOURS / total for one in weights]


def _hours(name: str, values: Sequence[float]) -> Sequence[float]:
    if len(values) != HOURS:
        raise SettingsError(f"{name} has {len(values)} numbers; a day has {HOURS} hours")
    return values


def _limits(use: UseFile) -> PlaceLimits:
    for name in ("max_update_s", "max_cost_per_million"):
        if not getattr(use, name) > 0:
            raise SettingsError(f"{name}: {getattr(use, name):g} is not above 0")
    return PlaceLimits(
        budget_ms=use.budget_ms,
        min_accuracy=use.min_accuracy,
        residency=use.residency,
        max_leaving_share=use.max_leaving_share,
        max_update_s=use.max_update_s,
        max_cost_per_million=use.max_cost_per_million,
        min_served_share=use.min_served_share_without_link,
    )
