"""Ways to hold a command to what its manifest grants."""
