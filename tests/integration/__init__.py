"""Proofs of the Python trainer as its users run it."""
