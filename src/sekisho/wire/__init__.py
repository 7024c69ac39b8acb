"""What travels between the parties: versioned messages, opaque envelopes, frames of chunks.

Compatibility: a field is never renamed, retyped or removed; a new field has a default; readers
ignore fields that they do not know.
"""
