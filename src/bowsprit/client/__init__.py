"""Speaking to any Kubernetes API: kubeconfig, REST, informers, work queues, leader election, events.

Law: works against every conformant API server; imports nothing of our own server.
"""
