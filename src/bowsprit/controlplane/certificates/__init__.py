"""The kinds of the certificates group that do more than their schema says."""
