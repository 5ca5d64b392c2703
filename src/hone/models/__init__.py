"""Weights: where they are, how they load, how they attend. It knows no rows."""
