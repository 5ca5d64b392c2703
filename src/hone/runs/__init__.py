"""What happened: the run folder, its events, its checkpoints. It knows no torch."""
