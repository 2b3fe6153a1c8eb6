"""The kinds of the coordination group that do more than their schema says."""
