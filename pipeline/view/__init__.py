"""``foldnorm view``: walk through cohorts, and what models make of them, in a browser."""
