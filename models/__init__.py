"""Networks, losses and training steps. Knows no files and no commands."""
