"""Tadpole: trains diffusion models from .toml files and folders of images."""
__version__ = "0.1.0"
