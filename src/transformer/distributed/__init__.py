"""Several processes: DDP, FSDP2 and sharded checkpoints."""
