"""One trained model applied to volumes or images: what it makes of them, written as files.

No score is defined here (`scoring`), no models are compared (`studies`), and nothing is trained.
"""
