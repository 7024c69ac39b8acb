"""The workflow side: submit a job, wait for it, fetch what the site let go.

The same calls over every lane. Whatever was asked once may be asked again with the same job id.
"""
