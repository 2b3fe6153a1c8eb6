"""The kinds of the networking group that do more than their schema says."""
