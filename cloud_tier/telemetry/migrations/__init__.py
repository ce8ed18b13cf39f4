"""Alembic's revisions of the tables of telemetry."""
