"""A kube-scheduler-compatible scheduling framework.

Law: decisions are pure; one driver talks to the API.
"""
