"""The kinds of the batch group that do more than their schema says."""
