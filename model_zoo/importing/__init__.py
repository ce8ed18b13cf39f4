"""Takes model files of other projects: from a file to a model folder (numpy, the engine)."""
