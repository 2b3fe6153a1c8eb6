"""A pytest plugin, builders and conformance suites.

Law: a product for users' tests; our own tests use it too.
"""
