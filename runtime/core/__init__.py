"""Decisions as functions of values: no clock, no sockets, no files; time is an argument."""
