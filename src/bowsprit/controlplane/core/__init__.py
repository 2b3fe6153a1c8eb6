"""The kinds of the core group that do more than their schema says."""
