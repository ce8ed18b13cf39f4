"""``tierwise up``: a hierarchy on this machine, from model folders."""
