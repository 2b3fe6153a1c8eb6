"""The kinds of the apps group that do more than their schema says."""
