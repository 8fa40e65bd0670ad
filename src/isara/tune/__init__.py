"""What the seeds alone say about the settings that a model wants."""
