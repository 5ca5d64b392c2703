"""Files of rows judged, surveyed and repaired."""
