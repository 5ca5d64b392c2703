"""One verb a file; the only room that composes the others."""
