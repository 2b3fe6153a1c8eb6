"""Reaching an API server through SSH and SOCKS5.

Law: protocol machines are free of I/O; leaves nothing behind when closed.
"""
