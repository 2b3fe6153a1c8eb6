"""APIService: routing, availability, merged discovery and OpenAPI.

Law: sees other API servers only through HTTP.
"""
