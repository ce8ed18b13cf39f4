"""Answers that wait for people, at the cloud tier: kept, given out, labelled, and told."""
