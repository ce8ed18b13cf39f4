"""Steps that a person tells: a list as in the manifest, or the usual ones of log-mel features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from model_zoo.importing import candidates
from model_zoo.importing.candidates import Shape, Way
from model_zoo.importing.options import ImportOptions, channel_axis_of
from runtime.binding import Grey, Normalise, Repeat, Reshape, Resize, Step, Steps
from runtime.binding_signals import (
    Frames,
    Log,
    Mel,
    Spectrum,
    Window,
    Windowed,
    next_fft_length,
)
from runtime.core.preprocessing import shape_after
from runtime.errors import ArtifactError

MAX_STEPS_BYTES = 16 << 20
_SERIES_AXES = (1, 2)
_OF_PICTURES = (Resize, Repeat, Grey)


class LogMel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``--log-mel``: frequencies in Hz, lengths in samples.

    ``fft`` 0 is the least power of two that holds a frame, ``high`` 0 is half the rate.
    """

    rate: float
    frame: int
    hop: int
    bands: int
    fft: int = 0
    low: float = 0.0
    high: float = 0.0
    window: Window = "hann"
    scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["none", "area"] = "none"
    log: Literal["natural", "decibel"] = "natural"
    floor: float = 1e-10
    tail: Literal["cut", "pad"] = "cut"

    def steps(self) -> tuple[Step, ...]:
        """Spelled out; the series is along the first axis.

        Raises:
            ValueError: a number is out of its bounds, or they contradict one another.
        """
        fft = self.fft or next_fft_length(max(1, self.frame))
        found = (
            Frames(self.frame, self.hop, tail=self.tail),
            Windowed(self.window, axis=1),
            Spectrum(fft, axis=1),
            Mel(self.bands, self.rate, self.low, self.high, self.scale, self.norm, axis=1),
            Log(self.log, self.floor),
        )
        return msgspec.convert(msgspec.to_builtins(found), tuple[Step, ...])


def read_steps(path: Path) -> tuple[Step, ...]:
    """The list of steps in a JSON file.

    Raises:
        ArtifactError: it cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_STEPS_BYTES + 1)
    except OSError as error:
        raise ArtifactError(f"--steps {path} cannot be read: {error.strerror}") from error
    if len(contents) > MAX_STEPS_BYTES:
        raise ArtifactError(f"--steps {path} is over {MAX_STEPS_BYTES} bytes")
    try:
        found = msgspec.json.decode(contents, type=Steps)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"--steps {path} is no list of steps as in a manifest, such as "
            f'[{{"step": "window"}}]: {error}'
        ) from error
    if not found:
        raise ArtifactError(f"--steps {path} is empty: leave the option out")
    return found


def log_mel_of(text: str) -> tuple[Step, ...]:
    """The steps of ``rate=16000,frame=400,hop=160,bands=40``.

    Raises:
        ArtifactError: a word is unknown, missing, there twice, or impossible.
    """
    words: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key.strip() in words:
            raise ArtifactError(f"--log-mel: {part!r} is no KEY=VALUE of its own")
        words[key.strip()] = value.strip()
    try:
        return msgspec.convert(words, LogMel, strict=False).steps()
    except (ValueError, msgspec.ValidationError) as error:
        raise ArtifactError(
            f"--log-mel {text!r}: {error}; it is such as rate=16000,frame=400,hop=160,bands=40"
        ) from error


def check_alone(options: ImportOptions) -> None:
    """Refuses options that say the same thing twice.

    Raises:
        ArtifactError: which of them.
    """
    others: dict[str, object] = {
        "--scale": options.scale,
        "--normalise": options.normalise,
        "--resize": options.resize,
        "--input-layout": options.layout != "auto",
    }
    if options.log_mel:
        others = {
            "--steps": options.steps,
            "--resize": options.resize,
            "--input-layout": options.layout != "auto",
        }
    elif not options.steps:
        return
    said = [name for name, value in others.items() if value]
    if said and options.log_mel:
        raise ArtifactError(f"--log-mel says what is done: {said[0]} cannot be told as well")
    if said:
        raise ArtifactError(f"--steps are all that is done: put {said[0]} into them")


@dataclass(frozen=True, slots=True)
class Told:
    """What was told, for examples of one shape."""

    options: ImportOptions

    def __bool__(self) -> bool:
        """Whether anything was."""
        return bool(self.options.steps or self.options.log_mel)

    def before(self, example: Shape) -> tuple[Step, ...]:
        """The steps from an example on; what the file wants of its shape may come after them.

        Raises:
            ArtifactError: they cannot be done.
        """
        if self.options.steps:
            steps = self.options.steps
            name = "--steps"
        else:
            steps = (*self._series(example), *self._scaled(), *self.options.log_mel)
            name = "--log-mel"
        try:
            shape_after(example, steps)
        except ValueError as error:
            raise ArtifactError(f"{name}, on examples of {list(example)}: {error}") from error
        return steps

    def ways(self, example: Shape, wanted: Shape) -> list[Way]:
        """All ways with these steps to the file's shape; none where they lead elsewhere."""
        steps = self.before(example)
        ends = shape_after(example, steps)
        if self.options.steps:
            is_there = len(ends) == len(wanted) and all(
                size in (-1, own) for size, own in zip(wanted, ends, strict=True)
            )
            return [Way("steps as told", steps)] * is_there
        found = []
        for one in candidates.layouts(ends, wanted):
            if any(isinstance(step, _OF_PICTURES) for step in one.steps):
                continue
            after = self._normalised(shape_after(ends, one.steps))
            words = "log-mel" if one.words == "as they are" else f"log-mel, {one.words}"
            found.append(Way(words, (*steps, *one.steps, *after)))
        return found

    def _series(self, example: Shape) -> tuple[Step, ...]:
        squeezed = tuple(size for size in example if size != 1)
        if len(squeezed) == 1 and len(example) > 1:
            return (Reshape(squeezed),)
        if len(example) not in _SERIES_AXES:
            raise ArtifactError(
                f"--log-mel takes a series (time,) or (time, channels), not {list(example)}"
            )
        return ()

    def _scaled(self) -> tuple[Step, ...]:
        scale = self.options.scale
        return () if scale is None else (Normalise((0.0,), (scale,)),)

    def _normalised(self, ends: Shape) -> tuple[Step, ...]:
        if self.options.normalise is None:
            return ()
        mean, std = self.options.normalise
        axis = channel_axis_of(ends, len(mean)) if len(mean) > 1 else -1
        if axis is None:
            raise ArtifactError(
                f"--normalise has {len(mean)} means, and no axis of that length is there"
            )
        try:
            return (Normalise(mean, std, axis=axis),)
        except ValueError as error:
            raise ArtifactError(f"--normalise: {error}") from error
