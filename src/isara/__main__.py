"""`isara`, also as `python -m isara`: nothing large is imported before signals and streams are taken care of."""

from isara.cli.guard import guarded


def main() -> None:
    """The command line."""
    guarded(_command_line)


def _command_line() -> None:
    from isara.cli.main import command_line

    command_line()


if __name__ == "__main__":
    main()
