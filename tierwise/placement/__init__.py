"""Reads cases for ``tierwise place``, and tells what was decided."""
