"""Escalation policies: fitted from labelled predictions with a guarantee, and judged (numpy)."""
