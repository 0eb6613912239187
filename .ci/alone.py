"""Runs a command, and fails when it takes too long or leaves a process behind: alone.py SECONDS COMMAND…

On Linux every descendant of ours, whatever it did to become a daemon, becomes our child when its parent ends. So
what the command leaves behind is what we then have for children. Elsewhere only the time is watched.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE = 5.0  # seconds for what is just ending


def main() -> int:
    """Returns the command's exit code, or 1 when that took too long or left something behind."""
    seconds, command = float(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"took more than {seconds:g} s: {' '.join(command)}", file=sys.stderr)
        kill(children())
        return 1
    deadline = time.monotonic() + GRACE
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, line in left.items():
        print(f"left behind: {pid} {line}", file=sys.stderr)
    kill(left)
    return 1 if left else code


def kill(processes: dict[int, str]) -> None:
    """Ends them, and those that become our children by that, and so on."""
    while processes:
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        processes = children()


def children() -> dict[int, str]:
    """Our living children with their command lines. Those that have ended are buried on the way."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and os.waitpid(int(directory.name), os.WNOHANG)[0] == 0:
                found[int(directory.name)] = (directory / "cmdline").read_text(errors="replace").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return found


if __name__ == "__main__":
    sys.exit(main())
