"""Sockets: dialers, proxies, TLS, gRPC over HTTP/2.

Law: the only place below the components that opens sockets; knows no Kubernetes kinds.
"""
