"""Tierwise: hierarchical edge-to-cloud inference, answered inside one deadline."""

__version__ = "0.1.0"
