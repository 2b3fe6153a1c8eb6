"""The command line: one file per command group.

Law: parses, calls, prints; decides nothing that a library user could not.
"""
