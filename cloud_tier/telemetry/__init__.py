"""What tiers tell of their decisions, kept as counts of minutes, hours and days, and asked about.

Needs the extra ``cloud`` (SQLAlchemy, Alembic); nothing outside this package imports it at start.
"""
