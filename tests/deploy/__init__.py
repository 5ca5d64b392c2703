"""What ships for running the service elsewhere."""
