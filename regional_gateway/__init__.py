"""The gateway of a region: answers its agents, and asks the cloud when unsure."""
