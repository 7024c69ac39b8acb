"""The broker: keeps jobs and chunks between workflow side and site. It never runs a command."""
