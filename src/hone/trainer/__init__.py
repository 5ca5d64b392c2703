"""The Python door: `SFTTrainer` with its callbacks. The one road of `hone.recipes.train` is behind it."""
