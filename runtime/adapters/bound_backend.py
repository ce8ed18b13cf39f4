"""A file of another project behind the tensors that its manifest promises.

Applies ``runtime.binding`` at one place, whatever the engine: inputs are prepared, a file that
takes one batch size only is run piece by piece, scores become logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from runtime.adapters.model_worker import TimedBackend
from runtime.adapters.warm_up import warm_up
from runtime.binding import InputBinding
from runtime.core.output_forms import to_output
from runtime.core.preprocessing import prepare, shape_after
from runtime.core.providers import EngineReport
from runtime.errors import ArtifactError, BackendError, RequestError
from runtime.manifest import Member, ModelManifest
from runtime.messages import Tensors, TensorSpec
from runtime.ports import Backend
from runtime.tensors import check_fit

Array = npt.NDArray[np.generic]


class BoundBackend:
    """Implements ``runtime.adapters.model_worker.TimedBackend`` for a member with bindings.

    ``engine`` is what runs the file, with tensors of its own.
    """

    def __init__(self, engine: TimedBackend, member: Member, manifest: ModelManifest) -> None:
        """Takes an engine that has the file's own tensors, and tries it.

        Raises:
            ArtifactError: the steps do not lead to what the file takes, or its scores to what the
                manifest promises.
            BackendError: the model failed to run.
        """
        self.engine = engine
        self._source = f"{manifest.name}/{member.file}"
        self._binds: Mapping[str, InputBinding] = member.inputs
        self._gives = member.outputs
        self._task = manifest.task
        # A box of score 0 is none; where axes are exchanged, the end is no box.
        self._may_fill = manifest.task == "detection" and not any(
            one.is_transposed for one in member.outputs.values()
        )
        self.inputs: tuple[TensorSpec, ...] = manifest.inputs
        self.outputs: tuple[TensorSpec, ...] = manifest.outputs
        self._piece = piece_of(member.inputs, self._source)
        for spec in manifest.inputs:
            self._check_steps(spec)
        self.typical_ms = warm_up(self.run, self.inputs, self.outputs, self._source)

    @property
    def report(self) -> EngineReport:
        """What runs it now."""
        return self.engine.report

    def run(self, inputs: Tensors) -> Tensors:
        """One inference.

        Raises:
            BackendError: the model failed, is closed, or the inputs are not those of the manifest.
        """
        try:
            num = check_fit(inputs, self.inputs)
            tensors = {
                bind.name: prepare(inputs[name], bind.steps, bind.datatype)
                for name, bind in self._binds.items()
            }
        except (RequestError, ValueError) as error:
            raise BackendError(f"{self._source} failed to run: {error}") from error
        if self._piece is None:
            found = self.engine.run(tensors)
        else:
            found = run_in_pieces(self.engine, tensors, num, *self._piece, fill=self._may_fill)
        return {
            spec.name: self._output(place, spec, found[self._gives[spec.name].name], num)
            for place, spec in enumerate(self.outputs)
        }

    def close(self) -> None:
        """Frees the model; safe to call twice."""
        self.engine.close()

    def _output(self, place: int, spec: TensorSpec, scores: Array, num: int) -> Array:
        bind = self._gives[spec.name]
        if num == 0 or scores.size % num:
            raise BackendError(
                f"{self._source}: {bind.name!r} has {scores.size} scores for {num} examples"
            )
        try:
            return to_output(
                scores,
                num,
                bind,
                task=self._task,
                shape=spec.shape,
                is_scores=place == 1,
                is_batched=self._piece is None or self._piece[1],
            )
        except ValueError as error:
            raise BackendError(f"{self._source}: {bind.name!r}: {error}") from error

    def _check_steps(self, spec: TensorSpec) -> None:
        bind = self._binds[spec.name]
        wanted = bind.shape[1:] if bind.is_batched else bind.shape
        try:
            found = shape_after(spec.shape[1:], bind.steps)
        except ValueError as error:
            raise ArtifactError(f"{self._source}: the steps of {spec.name!r}: {error}") from error
        if not _fits(found, wanted):
            raise ArtifactError(
                f"{self._source}: the steps of {spec.name!r} lead to {list(found)}, "
                f"and the file takes {list(wanted)}"
            )


def piece_of(binds: Mapping[str, InputBinding], source: str) -> tuple[int, bool] | None:
    """How many rows a file takes at once, and whether it has an axis for them; None: any number.

    Raises:
        ArtifactError: its inputs take different numbers.
    """
    takes = {
        (bind.shape[0] if bind.is_batched and bind.shape else 1, bind.is_batched)
        for bind in binds.values()
    }
    if len(takes) > 1:
        raise ArtifactError(f"{source}: its inputs take batches of different sizes")
    size, is_batched = takes.pop()
    return None if size < 0 else (size, is_batched)


def run_in_pieces(
    engine: Backend,
    tensors: Tensors,
    num: int,
    size: int,
    is_batched: bool,  # noqa: FBT001 - the second half of a piece
    *,
    fill: bool = False,
) -> Tensors:
    """Outputs ``(num, k)`` of what takes ``size`` rows; the last piece is filled up.

    With ``fill``, rows of fewer numbers than others are filled up with zeros.

    Raises:
        BackendError: the model failed, or gives what cannot be parted into rows.
    """
    pieces: dict[str, list[Array]] = {}
    for start in range(0, num, size):
        rows = np.minimum(np.arange(start, start + size), num - 1)
        piece = {name: one[rows] if is_batched else one[start] for name, one in tensors.items()}
        for name, one in engine.run(piece).items():
            if one.size % size:
                raise BackendError(f"{name!r} has {one.size} numbers for {size} examples")
            # A file without a batch axis, or one that drops it, gives one example as it is.
            pieces.setdefault(name, []).append(one.reshape(size, -1)[: num - start])
    lengths = {name: {part.shape[1] for part in parts} for name, parts in pieces.items()}
    for name, found in lengths.items():
        if len(found) > 1 and not fill:
            raise BackendError(
                f"{name!r} has {sorted(found)[:8]} numbers for several examples: ask one by one"
            )
    return {
        name: np.concatenate([_filled(part, max(lengths[name])) for part in parts])
        for name, parts in pieces.items()
    }


def _filled(part: Array, length: int) -> Array:
    missing = length - part.shape[1]
    return np.pad(part, ((0, 0), (0, missing))) if missing else part


def _fits(found: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(found) == len(wanted) and all(
        -1 in (one, other) or one == other for one, other in zip(found, wanted, strict=True)
    )
