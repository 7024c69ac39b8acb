"""Configuration files: TOML into typed, frozen values, or everything that is wrong with them.

Unknown keys are errors. Every fault is told at once, with file and line. The environment
(`SEKISHO_<SECTION>__<KEY>`) overrides a file.
"""
