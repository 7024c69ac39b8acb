"""One module for each version: `r` and its number. A published one is never edited."""
