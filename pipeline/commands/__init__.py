"""One file a command: HELP, add_arguments, run. Heavy imports stay inside run.

A command parses words, calls one function and prints. What computes belongs to a room below.
"""
