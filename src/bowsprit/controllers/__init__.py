"""kube-controller-manager: the controllers that make workloads, namespaces and garbage collection work.

Law: level-triggered; reads informers, writes through the client, keeps no state that a restart would miss.
"""
