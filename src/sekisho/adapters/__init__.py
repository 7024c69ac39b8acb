"""Adapters: the one place that knows a technology. Each implements a port of a layer below."""
