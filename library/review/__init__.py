"""Seeing the data before training: a page of what the model will be shown, and a walk through the batches."""
