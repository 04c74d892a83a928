"""A server that answers with bytes, whatever it is asked."""

import socket
import threading
import time


def answering(written, hold=0.0):
    """A server that writes the same bytes to each connection, and closes it after so many seconds."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(written)
                time.sleep(hold)

    threading.Thread(target=serve, daemon=True).start()
    return listening
