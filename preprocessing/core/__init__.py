"""The ground floor: errors that are the input's fault, files written whole or not at all, choices.

Nothing of brains comes in, and no other room is imported.
"""
