"""Konnectivity: proxy-server, proxy-agent and egress selection, wire-compatible with apiserver-network-proxy.

Law: protocol machines are free of I/O; one driver per role.
"""
