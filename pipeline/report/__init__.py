"""HTML pages about what commands have written, made of their files alone.

Neither torch nor scikit-learn nor a model comes in: a report opens where nothing was trained.
`page_files` is what scoring leaves for a page about one brain.
"""
