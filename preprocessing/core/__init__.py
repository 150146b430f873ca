"""The ground floor: errors of the input, files written whole, choices, counts in sentences.

Nothing of brains comes in, and no other room is imported.
"""
