"""gRPC over HTTP/2, thin: callback streams for bulk data, async calls on top.

Law: messages are bytes (protobuf is the caller's business); ``connection`` and ``stream`` do no I/O; every buffer, header and
count that a peer controls has a bound in ``limits``. Nothing here knows what is carried.
"""
