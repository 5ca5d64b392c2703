"""Where ART's scripts look for the backend of a service."""
