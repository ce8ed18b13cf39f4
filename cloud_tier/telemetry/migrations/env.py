"""Runs revisions on the connection that ``cloud_tier.telemetry.migrating`` passes."""

from __future__ import annotations

from alembic import context

from cloud_tier.telemetry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
# The caller's transaction holds the lock, and commits.
context.run_migrations()
