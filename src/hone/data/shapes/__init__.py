"""Every shape that a row may have: its keys, and how it is read."""
