"""Files on disk, read into arrays and back: sources, volumes, fold graphs, label schemes.

Originals are only read. What is computed from volumes belongs to a room above.
"""
