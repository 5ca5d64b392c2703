"""Proofs of the Python trainer at small size."""
