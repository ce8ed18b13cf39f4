"""Deltas of model files: what a device that has the old file needs to make the new one.

Bytes in, bytes out: nothing here reads a file, a clock or a socket. A delta is not signed and not
trusted. What is trusted is the digest and the size of the new file, which its manifest gives.
``docs/delta.md`` has the format.
"""

from runtime.delta.apply import apply_delta
from runtime.delta.make import is_worthwhile, make_delta

__all__ = ["apply_delta", "is_worthwhile", "make_delta"]
