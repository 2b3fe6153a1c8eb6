"""The kinds of the apiextensions group that do more than their schema says."""
