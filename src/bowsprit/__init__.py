"""Extend Kubernetes from Python.

The packages carry the names of the upstream components; ARCHITECTURE.md draws how they stand on each other.
"""

__version__ = "0.1.0"
