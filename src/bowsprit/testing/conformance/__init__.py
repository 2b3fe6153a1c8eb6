"""Suites that whoever implements one of the project's protocols runs against the implementation."""
