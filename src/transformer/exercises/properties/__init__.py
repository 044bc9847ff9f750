"""What each part must do, one file per exercise; property.py says what a property is."""
