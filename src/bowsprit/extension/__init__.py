"""Extension API servers written in Python.

Law: runs behind any kube-apiserver; reaches the core API only through the client.
"""
