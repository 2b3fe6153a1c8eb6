"""kube-apiserver: the built-in kinds, CustomResourceDefinitions, bootstrap objects, the aggregator wired in.

Law: one file per kind that does more than its schema says.
"""
