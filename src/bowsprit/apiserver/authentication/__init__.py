"""Authentication: who sends a request.

Law: an authenticator looks at credentials and objects, and never at what the request wants.
"""
