"""KubeSchedulerConfiguration: strict decoding, defaults, conversion of old versions, validation with upstream's messages."""
