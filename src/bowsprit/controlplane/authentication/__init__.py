"""authentication.k8s.io: the reviews, and ServiceAccount tokens through the API."""
