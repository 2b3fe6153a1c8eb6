"""Checks of an extension API server from end to end, whoever wrote it: fifteen questions, in the order of the request's way.

Each check is one function from a `Subject` (what is looked at) to a `Finding` (what was found, and what to do about it).
"""
