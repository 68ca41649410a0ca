"""Webhooks: written with the change they tell of, signed as Standard Webhooks are, sent until they arrive."""
