"""Hone teaches a language model by example; this is its public face, loaded when touched."""

__version__ = "0.1.0"

__all__ = ["__version__"]
