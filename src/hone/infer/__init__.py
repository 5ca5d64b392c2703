"""Conversations in, replies out. It knows no training."""
