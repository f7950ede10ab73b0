"""What redis-cli shows a person who types: argument 1 is the port."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp("redis-cli", ["redis-cli", "-p", sys.argv[1]])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))


shown = ""


def until(text):
    """Reads until the text has been shown, and goes on behind it; colours do not count."""
    global shown
    end = time.monotonic() + 20
    while text not in shown:
        left = end - time.monotonic()
        assert left > 0, f"{text!r} is not in {shown!r}"
        if select.select([terminal], [], [], left)[0]:
            shown += os.read(terminal, 65536).decode()
            for colour in ["\x1b[0;90;49m", "\x1b[0m", "\x1b[1m", "\x1b[90m", "\x1b[33m"]:
                shown = shown.replace(colour, "")
    shown = shown.split(text, 1)[1]


PROMPT = f"127.0.0.1:{sys.argv[1]}> "
FORGET = b"\x15"  # Ctrl-U
until(PROMPT)
for typed, hint in [
    ("SET ", "SET key value [NX|XX] [GET] [EX seconds|PX milliseconds|"),
    ("map.bind people ", "map.bind people source expression"),
    ("client list ", "client list [TYPE NORMAL|MASTER|REPLICA|PUBSUB] [ID client-id [client-id ...]]"),
    ("expire k ", "expire k seconds [NX|XX|GT|LT]"),
    ("sadd.crdt s a ", "sadd.crdt s a [member ...]"),
]:
    os.write(terminal, typed.encode())
    until(PROMPT + hint)
    os.write(terminal, FORGET)
    until(PROMPT)
for command, syntax in [
    ("SET", "SET key value [NX|XX] [GET]"),
    ("MAP.BIND", "MAP.BIND target source expression"),
]:
    os.write(terminal, f"help {command}\r".encode())
    until(syntax)
    until("summary:")
    until(PROMPT)
os.write(terminal, b"quit\r")
print("hints and help are shown")
