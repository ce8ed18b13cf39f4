"""The names by which a TensorFlow Lite file is asked."""

from __future__ import annotations

from typing import Any


def named_details(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 no types
    """Inputs and outputs by the names of the file's signature, or else of its tensors."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    sides = [{one["index"]: one for one in inputs}, {one["index"]: one for one in outputs}]
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        named = (runner.get_input_details(), runner.get_output_details())
        # A file may have more entries; they lie in other graphs.
        if all(
            {int(one["index"]) for one in names.values()} == side.keys()
            for names, side in zip(named, sides, strict=True)
        ):
            first, last = (
                {name: side[int(one["index"])] for name, one in names.items()}
                for names, side in zip(named, sides, strict=True)
            )
            return first, last
    return {one["name"]: one for one in inputs}, {one["name"]: one for one in outputs}
