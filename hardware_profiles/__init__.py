"""What a device is: the facts of this host that decide which model fits it."""
