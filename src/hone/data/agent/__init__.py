"""Agent conversations with tools, cleaned step by step. It knows turns and calls, no templates and no tokens."""
