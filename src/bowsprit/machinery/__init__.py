"""Kubernetes objects without I/O: names, codec, selectors, quantities, schemas, patches, apply, tables, statuses.

Law: values in, values out. No asyncio, socket, ssl, time or randomness; whoever needs the clock or a uid passes it in.
"""
