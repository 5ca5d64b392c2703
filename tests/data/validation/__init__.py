"""Tests of the validation of rows."""
