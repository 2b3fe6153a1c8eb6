"""Versioned key-value storage: the Store protocol and its memory and SQLite implementations.

Law: knows keys, bytes and revisions; never looks inside an object.
"""
