#!/usr/bin/python3
"""Asks a server of MongoDB's protocol for db.serverStatus().ok, as `mongosh --host IP --port PORT --eval ...` does; for machines without npm."""

import socket
import struct
import sys


def document(*elements):
    body = b"".join(elements) + b"\0"
    return struct.pack("<i", len(body) + 4) + body


def ask(host, port):
    command = document(b"\x10serverStatus\0" + struct.pack("<i", 1), b"\x02$db\0" + struct.pack("<i", 6) + b"admin\0")
    body = struct.pack("<I", 0) + b"\0" + command
    with socket.create_connection((host, port), timeout=5) as server:
        server.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        (size,) = struct.unpack("<i", receive(server, 4))
        return receive(server, size - 4)


def receive(server, count):
    received = b""
    while len(received) < count:
        chunk = server.recv(count - len(received))
        if not chunk:
            raise OSError("the connection ended")
        received += chunk
    return received


options = dict(zip(sys.argv, sys.argv[1:]))
try:
    answer = ask(options["--host"], int(options["--port"]))
except ConnectionRefusedError:
    sys.exit("connect ECONNREFUSED")
if b"\x01ok\0" + struct.pack("<d", 1.0) not in answer:
    sys.exit("serverStatus is not ok")
print(1)
