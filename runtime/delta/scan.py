"""Finds the tensors in a model file, without the libraries that load one.

Rules of this file and of the two scanners:
  * a file that is not understood, or that lies, has no ranges, or those that were found safely;
    never an exception, since a delta of a file without ranges is merely larger;
  * nothing recurses, and the number of steps has a limit, whatever the file says.
"""

from __future__ import annotations

from runtime.delta.onnx_scan import scan_onnx
from runtime.delta.ranges import Kind, Range, disjoint
from runtime.delta.tflite_scan import is_tflite, scan_tflite

__all__ = ["Kind", "Range", "scan"]


def scan(file: bytes) -> tuple[Range, ...]:
    """Where the tensors of an ONNX or TFLite file lie: in order, none overlapping another."""
    found = scan_tflite(file) if is_tflite(file) else scan_onnx(file)
    return disjoint(found, len(file))
