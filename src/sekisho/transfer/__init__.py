"""Moving files: a tree is a list of names and chunks; only missing chunks travel.

The same code serves inputs and outputs, at both ends, over every lane.
"""
