"""`isara`, also as `python -m isara`: nothing large is imported before signals are taken care of."""

import os

try:
    from isara.cli.stop import Stop
except KeyboardInterrupt:  # its own import takes milliseconds
    os.write(2, b"isara: stopped; nothing was begun; give the same command again\n")
    os._exit(130)


def main() -> None:
    """The command line."""
    stop, status = Stop(), 0
    from isara.cli.guard import guarded

    try:
        guarded(_command_line, stop)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
        raise
    except BaseException:
        status = 1
        raise
    finally:
        stop.done(status)


def _command_line() -> None:
    from isara.cli.main import command_line

    command_line()


if __name__ == "__main__":
    main()
