"""The kinds of the storage group that do more than their schema says."""
