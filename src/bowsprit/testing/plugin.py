"""Pytest fixtures: an in-process cluster per worker, a namespace per test, and kubectl."""
