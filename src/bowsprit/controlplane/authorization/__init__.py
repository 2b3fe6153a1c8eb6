"""authorization.k8s.io: the reviews, which ask and are not stored."""
