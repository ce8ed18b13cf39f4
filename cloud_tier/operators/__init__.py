"""The port of those who operate Tierwise: on loopback, for whoever has the token."""
