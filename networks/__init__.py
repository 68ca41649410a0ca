"""Adapters: modules that `--network_module` names and `library/methods/adapter.py` trains."""
