"""Learn what healthy cortical folding looks like, and score brains against it."""
