"""The default plugins, one noun per file, with upstream's names, arguments, formulas and messages."""
