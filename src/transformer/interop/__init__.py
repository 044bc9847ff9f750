"""Models of other programs, in and out, and the export to the lesson page."""
