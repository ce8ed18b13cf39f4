"""The runtime shared by all tiers: values, decisions, ports, adapters and the exchange."""
