"""The kinds of the discovery group that do more than their schema says."""
