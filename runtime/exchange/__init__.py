"""Asking the tier above and answering the tier below, over the message bus."""
