"""``python -m cloudtune`` is the command ``cloudtune``."""

from cloudtune.cli.main import main

main()
