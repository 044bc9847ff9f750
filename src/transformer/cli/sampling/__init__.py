"""The demo-sampling command."""
