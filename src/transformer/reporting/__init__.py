"""What a run logs, and the pictures made from it."""
