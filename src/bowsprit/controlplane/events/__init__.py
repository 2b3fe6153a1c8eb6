"""The kinds of the events group that do more than their schema says."""
