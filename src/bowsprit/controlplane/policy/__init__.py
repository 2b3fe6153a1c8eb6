"""The kinds of the policy group that do more than their schema says."""
