"""Alerts of the cloud tier itself: from what it sees and what those below tell it, to people."""
