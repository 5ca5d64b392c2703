"""The job service."""
