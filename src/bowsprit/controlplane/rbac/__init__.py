"""The kinds of the rbac group that do more than their schema says."""
