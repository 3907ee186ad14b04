"""Becomes a server process that cannot outlive its parent. Run as a script, never imported.

Arguments: the parent's process id, the signal for when it dies, a user and a group id (-1: stay), then the command.
It must be a program of its own, because the steps have an order: the kernel forgets the parent-death signal when the
user changes (prctl(2), PR_SET_PDEATHSIG), so the user changes first; a parent that died before the signal was set
sends none, so it is looked for afterwards. Between fork and exec of a process with threads none of this is safe.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Step down, tie this process to its parent, and become the command."""
    parent, death_signal, uid, gid = map(int, arguments[:4])
    command = arguments[4:]
    # Python ignores two of these and handles the third; what is ignored would stay so in the command.
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit("The parent has died before its child could start.")
    os.execv(command[0], command)  # noqa: S606 - becoming the command is the point


if __name__ == "__main__":
    main(sys.argv[1:])
