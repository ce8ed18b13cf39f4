"""Real implementations of the ports; each file imports its own library and wraps its errors."""
