"""Finds the way in: how inputs of callers become those of the file, and where the scores are.

With labelled data every likely way is tried, and ``model_zoo.importing.choosing`` takes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_zoo.class_labels import as_indices, texts_of
from model_zoo.importing import candidates, scores
from model_zoo.importing.candidates import Way
from model_zoo.importing.choosing import Attempt, best_of
from model_zoo.importing.options import ImportOptions, Tried, channel_axis_of, said_numbers
from model_zoo.importing.shapes import Outward, bind_of, outward_of, without_data
from model_zoo.importing.trial import Trial, check_outputs
from runtime.adapters.signatures import FileSignature
from runtime.binding import InputBinding, Step
from runtime.core.preprocessing import prepare, shape_after
from runtime.errors import ArtifactError, BackendError, RequestError
from runtime.messages import TensorSpec

Array = npt.NDArray[np.generic]
MAX_TRIED = 256
# For all ways together.
TRYING_BUDGET_S = 30.0
_FEWEST = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """How a file is asked; ``binds`` by the names of ``specs``, which callers see."""

    specs: tuple[TensorSpec, ...]
    binds: dict[str, InputBinding]
    scores: scores.Scores
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    tried: tuple[Tried, ...]


def enter(options: ImportOptions, contents: bytes, signature: FileSignature) -> Entry:
    """The way in.

    Raises:
        ArtifactError: there is none, or something has to be said; the text names the option.
        BackendError: the file fails to run, however it is asked.
        PolicyError: the data do not fit it.
    """
    notes: list[str] = []
    outward = outward_of(options, signature, notes)
    names = _names_of_classes(options, notes)
    if options.data is not None:
        rows = _some(len(options.data.labels))
        examples = {name: one.array[rows] for name, one in outward.items()}
    else:
        rows = np.arange(0)
        examples = without_data(outward)
    attempts, failures = _attempts(options, contents, signature, outward, examples)
    if not attempts:
        raise BackendError(
            f"{options.file} fails however it is asked. {failures[0] if failures else ''}"
        )
    served = check_outputs(signature, str(options.file))
    chosen = scores.choose(
        attempts[0].found,
        served,
        num_labels=len(names) or None,
        at_least=_least_classes(options),
        chosen=options.scores_output,
        wanted=options.scores,
        source=str(options.file),
    )
    if not names:
        names = tuple(str(number) for number in range(chosen.num_classes))
        if options.data is None and not options.is_numbered:
            raise ArtifactError(
                f"what the {chosen.num_classes} classes are called is not known: give --labels "
                'labels.txt or --labels "a,b,c", in the order of the scores (--labels numbers '
                "calls them 0, 1, ...), or labelled --data"
            )
        notes.append(f"the classes are called 0 to {chosen.num_classes - 1}; --labels names them")
    _check_count(names, chosen, options)
    tried: tuple[Tried, ...] = ()
    taken = attempts[0]
    if options.data is not None:
        labels = as_indices(options.data.labels[rows], names, options.data.source)
        taken, tried = best_of(attempts, chosen, labels, notes)
    _say_pieces(taken, notes)
    if chosen.note:
        notes.append(chosen.note)
    specs = tuple(one.spec for one in outward.values())
    return Entry(specs, taken.binds, chosen, names, tuple(notes), tried)


def _some(num: int) -> npt.NDArray[np.int64]:
    """Examples to try on, of all over the data."""
    return np.unique(np.linspace(0, num - 1, min(num, MAX_TRIED)).astype(np.int64))


def _names_of_classes(options: ImportOptions, notes: list[str]) -> tuple[str, ...]:
    if options.labels:
        return options.labels
    if options.data is None or options.is_numbered:
        return ()
    if options.data.label_names:
        notes.append(f"the names of the classes are those in {options.data.source}")
        return options.data.label_names
    if options.data.labels.dtype.kind in "US":
        names = tuple(sorted(set(texts_of(options.data.labels))))
        notes.append(
            f"the classes are taken in alphabetical order, {names[0]!r} first; --labels says "
            "otherwise"
        )
        return names
    return ()


def _least_classes(options: ImportOptions) -> int:
    if options.data is None or options.data.labels.dtype.kind in "US":
        return 2
    return max(2, int(options.data.labels.max(initial=0)) + 1)


def _check_count(names: Sequence[str], chosen: scores.Scores, options: ImportOptions) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ArtifactError(f"the label {repeated[0]!r} is there twice: every class needs its own")
    if len(names) == chosen.num_classes:
        return
    extra = ""
    if chosen.num_classes == len(names) + 1:
        extra = "; one more is often a class `background` that comes first"
    raise ArtifactError(
        f"there are {len(names)} labels, but {chosen.tensor.name!r} of {options.file} gives "
        f"{chosen.num_classes} scores{extra}: correct --labels"
    )


def _attempts(
    options: ImportOptions,
    contents: bytes,
    signature: FileSignature,
    outward: dict[str, Outward],
    examples: dict[str, Array],
) -> tuple[list[Attempt], list[str]]:
    """What the file gives for each way; several inputs are tried as they are."""
    failures: list[str] = []
    attempts: list[Attempt] = []
    trials: dict[tuple[object, ...], Trial] = {}
    try:
        for words, steps in _ways(options, outward, examples):
            try:
                binds = {
                    name: bind_of(one, steps[name], options.file) for name, one in outward.items()
                }
                key = tuple(one.shape for one in binds.values())
                if key not in trials:
                    trials[key] = Trial(contents, signature, binds, str(options.file))
                trial = trials[key]
                num = _affordable(trial.typical_ms, len(next(iter(examples.values()))))
                some = {name: one[:num] for name, one in examples.items()}
                found = trial.run(some, steps)
            except (BackendError, ArtifactError, ValueError, RequestError) as error:
                failures.append(str(error))
                continue
            # Shapes as the trial has found them to be true.
            real = {
                name: InputBinding(
                    one.name, one.datatype, trial.binds[name].shape, steps[name], one.is_batched
                )
                for name, one in binds.items()
            }
            attempts.append(Attempt(words, real, found))
    finally:
        for one in trials.values():
            one.close()
    return attempts, failures


def _affordable(typical_ms: float, num: int) -> int:
    ways = 20
    return min(num, max(_FEWEST, int(TRYING_BUDGET_S * 1e3 / ways / max(typical_ms, 0.01))))


def _ways(
    options: ImportOptions, outward: dict[str, Outward], examples: dict[str, Array]
) -> list[tuple[str, dict[str, tuple[Step, ...]]]]:
    if len(outward) > 1:
        return [("as they are", {name: _first_way(one) for name, one in outward.items()})]
    ((name, one),) = outward.items()
    found = []
    laid = one.layouts(options.layout)
    if one.told:
        return _told_ways(one, laid, name, options)
    if not laid:
        raise ArtifactError(
            f"examples of shape {list(one.spec.shape[1:])} do not become the {list(one.wanted)} "
            f"that {options.file} takes: send them so, or say --input-layout or --resize"
        )
    for layout in laid:
        try:
            array = prepare(examples[name][:MAX_TRIED], layout.steps, _kept(examples[name]))
        except (ValueError, RequestError):
            continue
        for way in _numbers(options, examples[name], array, one):
            words = ", ".join(
                dict.fromkeys(part for part in (layout.words, way.words) if part != "as they are")
            )
            found.append((words or "as they are", {name: (*layout.steps, *way.steps)}))
    # The likeliest numbers in every layout before the others in any.
    return found


def _told_ways(
    one: Outward, laid: list[Way], name: str, options: ImportOptions
) -> list[tuple[str, dict[str, tuple[Step, ...]]]]:
    if laid:
        return [(way.words, {name: way.steps}) for way in laid]
    shape = one.spec.shape[1:]
    ends = shape_after(shape, one.told.before(shape))
    raise ArtifactError(
        f"the steps make {list(ends)} of examples of shape {list(shape)}, and {options.file} takes "
        f"{list(one.wanted)}: correct them"
    )


def _kept(array: Array) -> str:
    return "UINT8" if array.dtype == np.uint8 else "FP32"


def _first_way(one: Outward) -> tuple[Step, ...]:
    ways = one.layouts("auto")
    return ways[0].steps if ways else ()


def _numbers(options: ImportOptions, data: Array, laid_out: Array, one: Outward) -> list[Way]:
    length = len(options.normalise[0]) if options.normalise else 1
    axis = channel_axis_of(laid_out.shape[1:], length) if length > 1 else None
    said = said_numbers(options, axis)
    if said is not None:
        return [Way("numbers as told", said)]
    if options.data is None:
        return [Way("as they are", ())]
    return candidates.numbers(data, laid_out, is_float=one.datatype.startswith("FP"))


def _say_pieces(taken: Attempt, notes: list[str]) -> None:
    (bind, *_) = taken.binds.values()
    if not bind.is_batched:
        notes.append("the file has no axis for the batch: examples run one by one")
    elif bind.shape[0] > 0:
        rows = "one by one" if bind.shape[0] == 1 else f"{bind.shape[0]} at a time"
        notes.append(f"the file takes a batch of {bind.shape[0]} only: examples run {rows}")
