"""The kinds of the node group that do more than their schema says."""
