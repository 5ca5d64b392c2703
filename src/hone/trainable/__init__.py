"""A model that is trained call by call: trajectories, schedules, and what a backend must do. No torch."""
