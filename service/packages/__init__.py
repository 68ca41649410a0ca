"""What becomes of trained weights: packages that draw, the models and versions that they are registered as, predictions."""
