"""Wiring: the only place that knows both a port and its adapter."""
