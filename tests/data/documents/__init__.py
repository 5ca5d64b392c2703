"""Tests of the agent steps."""
