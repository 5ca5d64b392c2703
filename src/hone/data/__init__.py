"""The road of a row, from bytes to Packs. It knows no torch and no model."""
