"""The broker's HTTP face: the route table, who may call, problems, long polls, streams.

`routes.py` is the whole attack surface on one page. No business rule lives in this package.
"""
