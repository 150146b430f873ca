"""The ground floor: errors that are the input's fault, and files written whole or not at all.

Nothing of brains comes in, and no other room is imported.
"""
