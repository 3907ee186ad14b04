"""What is said between a Parley server and its clients: types and pure functions.

Nothing in here reads a clock, rolls dice or does I/O (`client`, the Python client, is the one exception and is not
imported from here). The published specification is this folder's README.
"""
