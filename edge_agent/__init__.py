"""The agent on a device: answers in place, and asks the region when unsure."""
