"""Builds models: train, distil, export, quantize, calibrate; holds the bundled task."""
