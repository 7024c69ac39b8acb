"""The site: one runner that carries a job through its stages, the same in both modes."""
