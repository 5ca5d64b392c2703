"""What `hone new` puts into a project's folder: a Makefile, configurations, workflows. Files, no code of Hone's."""
