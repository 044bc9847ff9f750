"""What a run will cost, and what the hardware offers."""
