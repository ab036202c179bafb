"""
Become another program that the kernel signals when our parent dies, however it dies.

Run as a script (`python tether.py PARENT_PID SIGNAL COMMAND...`), so that nothing has to happen between fork and exec
of a parent with threads. Standard library only; starts in about 20 ms.
"""

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tether(parent_pid: int, death_signal: int) -> None:
    """Ask for `death_signal` at our parent's death; exits if it has died already. Outside Linux it does nothing."""
    if sys.platform != "linux":
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        sys.exit(128 + death_signal)


def main(argv: list[str]) -> None:
    """Tether this process, then run the command in its place."""
    parent_pid, death_signal, *command = argv
    tether(int(parent_pid), int(death_signal))
    # Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored in the next program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
