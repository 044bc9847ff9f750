"""The test-fineweb command."""
