"""The simulated kubelet: nodes that are Ready and pods that run without containers.

Law: speaks to the cluster only through the API, with a node's identity.
"""
