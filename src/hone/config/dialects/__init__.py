"""Other systems' configuration languages, each a table of its keys and what they are in ours."""
