"""Inside a network of its own, with nothing but loopback: port 10090 there leads to a Unix socket, and then a script runs."""

import runpy
import socket
import sys
import threading


def serve(listener, path):
    while True:
        client, _ = listener.accept()
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(path)
        for source, target in ((client, upstream), (upstream, client)):
            threading.Thread(target=carry, args=(source, target), daemon=True).start()


def carry(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


listener = socket.create_server(("127.0.0.1", 10090))
threading.Thread(target=serve, args=(listener, sys.argv[1]), daemon=True).start()
del sys.argv[1]
if sys.argv[1] == "-m":
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
