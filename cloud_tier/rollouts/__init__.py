"""Staged rollouts as a service: what ``runtime.core.rollout`` decides is stored, then done."""
