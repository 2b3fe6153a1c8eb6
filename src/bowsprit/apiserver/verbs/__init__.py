"""The verbs: one module each, a function that takes a Call and gives an answer."""
