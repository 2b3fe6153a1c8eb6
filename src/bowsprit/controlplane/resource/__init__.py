"""The kinds of the resource group that do more than their schema says."""
