"""Runs a command and tells what it cost: ``python -I -S stopwatch.py RESULT COMMAND ...``

A process of its own, and a small one: a child's peak memory counts from what its parent had when it forked.
"""

import json
import os
import sys
import time


def main() -> int:
    """Seconds of wall time, seconds of CPU of the command and all it waited for, KiB of peak memory, exit status."""
    result, *command = sys.argv[1:]
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    cost = {
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss_kib": usage.ru_maxrss,
        "status": os.waitstatus_to_exitcode(status),
    }
    with open(result, "w") as file:
        json.dump(cost, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
