"""The cloud tier: the ensemble at the top of the hierarchy."""
