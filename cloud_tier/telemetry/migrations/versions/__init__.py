"""One file a revision; applied in the order of their chain."""
