"""Authorization: whether a user may do something.

Law: decisions depend on the attributes and the objects of the cluster alone.
"""
