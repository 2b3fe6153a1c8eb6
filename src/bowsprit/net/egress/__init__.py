"""Egress selection: how a client (the API server) reaches networks through a Konnectivity server.

Law: the client's side of the protocol and its packets live here, below everything that dials; servers and agents are in
``konnectivity``. A dial answers a plain socket, as every dialer does.
"""
