"""The commands: they join preprocessing and models."""
