"""``python -m bowsprit``."""

from bowsprit.cli.main import main

main()
