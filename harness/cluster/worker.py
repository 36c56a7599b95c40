"""`Worker`: evaluates cells, one after another, on the machine that it runs on, and keeps nothing: the driver does."""

import faulthandler
import os
import sys
import threading
from typing import Any

from harness.cluster.machine import arrival
from harness.cluster.messages import Arrived, Ended, Message, Setup, Told
from harness.cluster.remote_files import Channel, RemoteFiles
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.telling import telling


class Worker:
    """Answers the driver's messages: a cell to begin with, then what the driver says to each message of the worker's.

    The cell runs in a thread of its own, which waits while the driver thinks, as the driver's calls wait for the thread.
    """

    def __init__(self, setup: Setup, log: str = "") -> None:
        self.setup = setup
        self.log = log
        self.channel = Channel()
        self._thread: threading.Thread | None = None

    def arrive(self) -> Arrived:
        """The worker is there, on this machine."""
        if self.setup.threads is not None:
            import torch

            torch.set_num_threads(self.setup.threads)
        return arrival(self.setup, self.log)

    def exchange(self, message: Any) -> Message:
        """Begin with a cell, or hand on what the driver says; returns what the worker says next."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self.channel.received.put(message)
        return self.channel.sent.get()

    def _work(self) -> None:
        setup, channel = self.setup, self.channel
        bench = setup.bench(
            setup.settings,
            RunFolder(RemoteFiles(channel, "run")),
            Store(RemoteFiles(channel, "results")),
            setup.device,
            setup.processes,
            setup.rerun,
            None if setup.margins is None else setup.margins.get,
        )
        while True:
            cell = channel.received.get()
            channel.deaf = False
            try:
                with telling(lambda line: channel.ask(Told(line))), bench.measuring(cell) as measured:
                    channel.deaf = True
            except BaseException as error:  # a task of lmms-eval may call sys.exit
                channel.sent.put(Ended.by(error))
            else:
                channel.sent.put(Ended(measured))


class Process(Worker):
    """A worker in a process of its own, whose last words its machine keeps in a file."""

    def __init__(self, setup: Setup) -> None:
        faulthandler.enable()
        super().__init__(setup, _written_to(sys.stderr.fileno()))


def _written_to(descriptor: int) -> str:
    """The file that this process writes to; empty where it is none, or the system does not say."""
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
    return path if os.path.isfile(path) else ""


def last_lines(log: str, count: int = 3) -> list[str]:
    """The last lines of a worker's file that say anything."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file if line.strip()][-count:]
    except OSError:
        return []
