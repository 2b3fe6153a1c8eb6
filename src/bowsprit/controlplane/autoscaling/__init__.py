"""The kinds of the autoscaling group that do more than their schema says."""
