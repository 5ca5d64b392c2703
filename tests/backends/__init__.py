"""Tests of where a run happens."""
