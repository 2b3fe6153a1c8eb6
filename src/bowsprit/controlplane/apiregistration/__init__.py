"""The kinds of the apiregistration group that do more than their schema says."""
