"""The kinds of the admissionregistration group that do more than their schema says."""
