"""Runs a command on a terminal of its own, and talks with it: terminal.py [EXPECT SEND]... -- COMMAND...

Each SEND is typed once its EXPECT was shown after what the one before it matched. Prints all that was shown, and ends with the command's exit code.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

DEADLINE = 25

end = sys.argv.index("--")
steps, command = sys.argv[1:end], sys.argv[end + 1 :]
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    os.execvp(command[0], command)

shown, seen = b"", 0
until = time.monotonic() + DEADLINE
while True:
    if steps and (found := shown.find(steps[0].encode(), seen)) >= 0:
        seen = found + len(steps[0].encode())
        os.write(terminal, steps[1].encode())
        steps = steps[2:]
        continue
    ready, _, _ = select.select([terminal], [], [], until - time.monotonic()) if time.monotonic() < until else ([], [], [])
    if not ready:
        sys.exit(f"still waiting for {steps[:1]} after {DEADLINE} s; shown: {shown!r}")
    try:
        data = os.read(terminal, 65536)
    except OSError:
        data = b""
    if not data:
        break
    shown += data

sys.stdout.write(shown.decode(errors="replace").replace("\r\n", "\n"))
sys.stdout.flush()
if steps:
    sys.exit(f"ended before {steps[0]!r} was shown: {shown!r}")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
