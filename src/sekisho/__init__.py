"""sekisho: run one step of a workflow on a computer you may not reach."""

__version__ = "0.1.0"
