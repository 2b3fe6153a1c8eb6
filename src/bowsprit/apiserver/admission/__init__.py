"""Admission: what may be written, and what is added to it on the way.

Law: one plugin per file, named as upstream names it; the chain alone knows their order.
"""
