"""Makes models smaller: int8 with mixed precision, pruning, and a cut in two. Needs ``onnx``."""
