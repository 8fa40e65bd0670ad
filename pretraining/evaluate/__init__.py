"""What the embedded model can do, measured. `python -m pretraining.evaluate` runs all of it."""
