"""What the model is: one small object per family, and reading its checkpoints."""
