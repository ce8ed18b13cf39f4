"""Which model should run where: decided before anything is installed, as functions of values."""
