"""What stands between the tensors that callers see and those that an engine has in their place.

The manifest's ``inputs`` and ``outputs`` are what callers and other tiers see. An engine may have
float16 where they see float32, quantized integers where they see floats, and, where there is no
doubt which is meant, another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.binding import InputBinding, OutputBinding
from runtime.core.quantization import Array, dequantize, quantize, to_half
from runtime.errors import ArtifactError, InvalidTensorError
from runtime.manifest import INTEGERS, Member, ModelManifest, Quantization
from runtime.messages import Tensors, TensorSpec
from runtime.tensors import dtype_of

# Of a scale, which passes through float32 in one of the two places.
SCALE_TOLERANCE = 1e-6
_FLOATS = ("FP16", "FP32", "FP64")


@dataclass(frozen=True, slots=True)
class Promise:
    """What a manifest says of its files' tensors.

    ``is_bound`` says that they are the file's own, of which outputs may be left out and free axes
    fixed.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    quantization: Mapping[str, Quantization]
    is_bound: bool = False

    @classmethod
    def of(cls, manifest: ModelManifest) -> Promise:
        """That of a manifest."""
        return cls(manifest.inputs, manifest.outputs, manifest.quantization)

    @classmethod
    def of_member(cls, manifest: ModelManifest, member: Member) -> Promise:
        """That of one member, whose file may have tensors of its own."""
        if not member.inputs:
            return cls.of(manifest)
        inputs = [_spec_of(one) for one in member.inputs.values()]
        # Two outputs may be parts of one tensor of the file.
        outputs = list({one.name: _spec_of(one) for one in member.outputs.values()}.values())
        names = {name: one.name for name, one in member.inputs.items()}
        names |= {name: one.name for name, one in member.outputs.items()}
        quantization = {names[name]: one for name, one in manifest.quantization.items()}
        return cls(inputs, outputs, quantization, is_bound=True)

    def wants(self, name: str) -> bool:
        """Whether an output of a file is of use."""
        return not self.is_bound or any(spec.name == name for spec in self.outputs)


@dataclass(frozen=True, slots=True)
class Found:
    """A tensor as the engine has it; ``quantization`` where the file says it itself.

    ``is_resizable`` says that a first axis of 1 may become any.
    """

    spec: TensorSpec
    quantization: Quantization | None = None
    is_resizable: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """One tensor as callers see it, and the engine's name and datatype of it."""

    spec: TensorSpec
    name: str
    datatype: str
    quantization: Quantization | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it passes as it is."""
        return (self.name, self.datatype) == (self.spec.name, self.spec.datatype)

    def encode(self, array: Array) -> Array:
        """What the engine takes for it.

        Raises:
            InvalidTensorError: it is not of the type that callers see, or NaN where that cannot be.
        """
        if array.dtype != dtype_of(self.spec.datatype):
            raise InvalidTensorError(
                f"{self.spec.name!r} must be {self.spec.datatype}, not {array.dtype}"
            )
        if self.quantization is not None:
            return quantize(array, self.quantization)
        return array if self.datatype == self.spec.datatype else to_half(array)

    def decode(self, array: Array) -> Array:
        """What callers get for it."""
        if self.quantization is not None:
            return dequantize(array, self.quantization, self.spec.datatype)
        return array if self.datatype == self.spec.datatype else array.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Edges:
    """Those of a model; in the order of the manifest, or of the file where there is none."""

    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]

    @property
    def is_plain(self) -> bool:
        """Whether everything passes as it is."""
        return all(edge.is_plain for edge in (*self.inputs, *self.outputs))

    def encode(self, tensors: Tensors) -> Tensors:
        """What the engine takes, by its own names.

        Raises:
            InvalidTensorError: a name is missing or unknown, or a tensor does not fit.
        """
        self._check_names(tensors)
        return {edge.name: edge.encode(tensors[edge.spec.name]) for edge in self.inputs}

    def _check_names(self, tensors: Tensors) -> None:
        if tensors.keys() != {edge.spec.name for edge in self.inputs}:
            raise InvalidTensorError(
                f"the model takes {[edge.spec.name for edge in self.inputs]}, not {list(tensors)}"
            )

    def check_shapes(self, tensors: Tensors) -> int:
        """The batch size of tensors that fit; for engines that do not look for themselves.

        Raises:
            InvalidTensorError: a name is missing or unknown, a shape differs, or batches do.
        """
        self._check_names(tensors)
        batches = set[int]()
        for edge in self.inputs:
            shape, wanted = tensors[edge.spec.name].shape, edge.spec.shape
            if len(shape) != len(wanted) or any(
                found < 1 or size not in {-1, found}
                for found, size in zip(shape, wanted, strict=False)
            ):
                raise InvalidTensorError(
                    f"{edge.spec.name!r} must have shape {list(wanted)}, not {list(shape)}"
                )
            if wanted[:1] == (-1,):
                batches.add(shape[0])
        if len(batches) > 1:
            raise InvalidTensorError(f"inputs disagree on the batch size: {sorted(batches)}")
        return batches.pop() if batches else 1

    def decode(self, tensors: Tensors) -> Tensors:
        """What callers get for what the engine gave."""
        return {edge.spec.name: edge.decode(tensors[edge.name]) for edge in self.outputs}


def match(
    promise: Promise | None,
    inputs: Sequence[Found],
    outputs: Sequence[Found],
    source: str,
    *,
    may_rename: bool = False,
) -> Edges:
    """How what a manifest promises comes about; without one, callers see what the engine has.

    Args:
        promise: what the manifest says.
        inputs: what the engine has, in its order.
        outputs: the same.
        source: names the file in errors.
        may_rename: whether a single tensor is the one that is meant, whatever its name.

    Raises:
        ArtifactError: there is no way from one to the other.
    """
    if promise is None:
        return Edges(_as_found(inputs), _as_found(outputs))
    sides = []
    for kind, promised, found in (
        ("input", promise.inputs, inputs),
        ("output", promise.outputs, [one for one in outputs if promise.wants(one.spec.name)]),
    ):
        pairs = _pairs(promised, found, may_rename=may_rename)
        if pairs is None or not all(
            _may_become(spec, one, is_bound=promise.is_bound) for spec, one in pairs
        ):
            raise ArtifactError(
                f"{source}: the manifest promises the {kind} {_listing(promised)}, "
                f"the model has {_listing(one.spec for one in found)}"
            )
        sides.append(tuple(_edge(spec, one, promise, source) for spec, one in pairs))
    return Edges(*sides)


def _spec_of(bound: InputBinding | OutputBinding) -> TensorSpec:
    return TensorSpec(bound.name, bound.datatype, bound.shape)


def _as_found(found: Sequence[Found]) -> tuple[Edge, ...]:
    return tuple(Edge(one.spec, one.spec.name, one.spec.datatype) for one in found)


def _pairs(
    promised: Sequence[TensorSpec], found: Sequence[Found], *, may_rename: bool
) -> list[tuple[TensorSpec, Found]] | None:
    by_name = {one.spec.name: one for one in found}
    if len(found) == len(promised) and by_name.keys() == {spec.name for spec in promised}:
        return [(spec, by_name[spec.name]) for spec in promised]
    if may_rename and len(promised) == len(found) == 1:
        return [(promised[0], found[0])]
    return None


def _may_become(spec: TensorSpec, found: Found, *, is_bound: bool) -> bool:
    """Whether shapes are the same, and types too or ones that are converted."""
    shape = found.spec.shape
    if is_bound and len(shape) == len(spec.shape):
        shape = tuple(size if own < 0 else own for own, size in zip(shape, spec.shape, strict=True))
    if found.is_resizable and shape[:1] == (1,) and spec.shape[:1] == (-1,):
        shape = (-1, *shape[1:])
    return spec.shape == shape and (
        spec.datatype == found.spec.datatype
        or (spec.datatype in _FLOATS and found.spec.datatype in INTEGERS)
        or (spec.datatype, found.spec.datatype) == ("FP32", "FP16")
    )


def _edge(spec: TensorSpec, found: Found, promise: Promise, source: str) -> Edge:
    said, own = promise.quantization.get(spec.name), found.quantization
    edge = Edge(spec, found.spec.name, found.spec.datatype)
    if spec.datatype == found.spec.datatype or found.spec.datatype not in INTEGERS:
        if said is None:
            return edge
        raise ArtifactError(
            f"{source}: the manifest says that {spec.name!r} is {said.datatype} in the model, "
            f"which has {found.spec.datatype}; correct `quantization`"
        )
    if said is None and own is None:
        raise ArtifactError(
            f"{source}: {spec.name!r} is {found.spec.datatype} in the model and {spec.datatype} in "
            "the manifest; say in its `quantization` with which scale and zero point"
        )
    if said is not None and own is not None and not _agree(said, own):
        raise ArtifactError(
            f"{source}: the manifest quantizes {spec.name!r} by {_words(said)}, "
            f"the file by {_words(own)}; correct or leave out `quantization`"
        )
    quantization = own or said
    if quantization is not None and quantization.datatype != found.spec.datatype:
        raise ArtifactError(
            f"{source}: the manifest says that {spec.name!r} is {quantization.datatype} in the "
            f"model, which has {found.spec.datatype}; correct `quantization`"
        )
    return Edge(spec, found.spec.name, found.spec.datatype, quantization)


def _agree(one: Quantization, other: Quantization) -> bool:
    return (one.datatype, one.zero_point) == (other.datatype, other.zero_point) and (
        abs(one.scale - other.scale) <= SCALE_TOLERANCE * other.scale
    )


def _words(one: Quantization) -> str:
    return f"{one.datatype} with scale {one.scale:g} and zero point {one.zero_point}"


def _listing(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs)
