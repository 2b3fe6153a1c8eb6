"""The error of all decoders: JSON, YAML and protobuf."""


class DecodeError(ValueError):
    """Bytes that cannot be read as what they claim to be. The text is what upstream's decoder says."""
