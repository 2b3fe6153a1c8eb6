"""The kinds of the scheduling group that do more than their schema says."""
