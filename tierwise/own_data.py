"""Examples of one's own data for ``tierwise infer``, as a running agent's model takes them."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import msgspec

from model_zoo.class_labels import texts_of
from model_zoo.importing.targets import BOXES, find_targets
from model_zoo.labelled import Labelled, find_labelled, inputs_for, part_of, read_arrays
from runtime.errors import InvalidTensorError, PolicyError, UnavailableError, UnknownModelError
from runtime.messages import TensorSpec
from tierwise.infer_command import Question

TIMEOUT_S = 5.0


class _Listed(msgspec.Struct):
    name: str


class _Described(msgspec.Struct):
    inputs: list[TensorSpec]


async def question_of(path: Path, index: int, base: str, model: str | None) -> Question:
    """One example by the names and types of the model that is served at ``base``.

    Raises:
        InvalidTensorError: there is no such example.
        PolicyError: the file cannot be used, or is of another model.
        UnavailableError: nobody answers there, or no agent.
        UnknownModelError: the model is not served there.
    """
    found, is_labelled = _examples(path)
    if not 0 <= index < len(found.labels):
        raise InvalidTensorError(f"--index goes from 0 to {len(found.labels) - 1} in {path}")
    one = part_of(found, index, index + 1)
    name, specs = await _served(base, model)
    inputs = inputs_for(one.inputs, specs, path.name)
    return Question(name, inputs, _truth(one) if is_labelled else "")


def _examples(path: Path) -> tuple[Labelled, bool]:
    """The examples of a file, and whether each has a label: to others belong boxes or numbers."""
    arrays = read_arrays(path)
    if BOXES in arrays:
        return find_targets(arrays, "detection", path.name)[0], False
    try:
        return find_labelled(arrays, path.name), True
    except PolicyError as error:
        try:
            return find_targets(arrays, "regression", path.name)[0], False
        except PolicyError:
            raise error from None


def _truth(one: Labelled) -> str:
    """The label of the only example, by its name where the file has one."""
    if one.is_multilabel:
        return ""
    if one.labels.dtype.kind in "US":
        return texts_of(one.labels)[0]
    label = int(one.labels[0].item())
    return one.label_names[label] if 0 <= label < len(one.label_names) else str(label)


async def _served(base: str, model: str | None) -> tuple[str, list[TensorSpec]]:
    """The name and the inputs of what an agent serves."""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session:
            if model is None:
                async with session.post(f"{base}/v2/repository/index") as response:
                    listed = msgspec.json.decode(await response.read(), type=list[_Listed])
                model = listed[0].name
            async with session.get(f"{base}/v2/models/{model}") as response:
                if response.status == 404:  # noqa: PLR2004 - HTTP
                    raise UnknownModelError(f"{model!r} is not served at {base}")
                described = msgspec.json.decode(await response.read(), type=_Described)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError(
            f"no agent answers at {base}: {error}; start one with: tierwise up --edge DIR"
        ) from error
    except (msgspec.DecodeError, IndexError) as error:
        raise UnavailableError(f"what answers at {base} is no agent of ours: {error}") from error
    return model, described.inputs
