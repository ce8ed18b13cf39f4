"""New models for a device: taken when they are assigned, tried, kept, or given back."""
