"""Around the training loop: checkpoints, resume state, validation, diagnosis, precision, device."""
