"""``foldnorm view``: walk through cohorts, and what models make of them, in a browser.

`library` reads, `models` alone imports torch, `server` decides who may ask. Nothing is written, and
no name of a file comes in from the browser.
"""
