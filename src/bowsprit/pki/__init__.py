"""Certificates: authorities, serving and client certificates, rotation.

Law: knows X.509 and files, nothing of Kubernetes objects or the network.
"""
