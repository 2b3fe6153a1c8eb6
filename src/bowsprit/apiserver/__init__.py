"""The generic API server library: registry, handler chain, authentication, authorization, admission, health, metrics.

Law: serves kinds that it is given; names no built-in kind.
"""
