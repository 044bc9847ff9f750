"""What a run needs around the model: a device, other processes, and a record of what happened."""
