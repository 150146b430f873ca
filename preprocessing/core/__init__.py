"""The ground floor: errors that are the input's fault, files written whole, numbers in sentences.

Nothing of brains comes in, and no other room is imported.
"""
