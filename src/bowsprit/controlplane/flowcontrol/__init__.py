"""The kinds of the flowcontrol group that do more than their schema says."""
