"""The embedded cluster: configuration, supervision and composition of all components.

Law: the only package that sees every component.
"""
