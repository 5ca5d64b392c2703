"""What the user wants: a strict, frozen configuration. It knows no torch and no files but its own."""
