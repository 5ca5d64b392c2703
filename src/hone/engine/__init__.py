"""The optimizer step and what surrounds it. It knows no rows and no screens."""
