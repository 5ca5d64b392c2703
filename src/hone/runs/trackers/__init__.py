"""Who is told a run's numbers outside of it: each tracker follows the run's events in a process of its own."""
