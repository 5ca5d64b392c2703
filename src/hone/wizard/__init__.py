"""The wizard: a few questions, and a training script that runs alone. It loads no torch and prints nothing."""
