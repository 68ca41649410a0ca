"""Optimizers and learning rate schedules by name, checked before a model is loaded."""
