"""A cluster without Ray: workers are threads of this process, which can be killed like processes and machines."""

import concurrent.futures
import threading
from dataclasses import dataclass, field

from harness.cluster.crew import Node, WorkerLost
from harness.cluster.messages import Arrived
from harness.cluster.worker import Worker

FACTS = {"device": "cpu"}
TWO = (Node("a", "a", 1, 0), Node("b", "b", 1, 0))


@dataclass
class Thread:
    worker: Worker
    node: Node
    room: tuple
    dead: str = ""
    tokens: list = field(default_factory=list)

    def kill(self, why="it was killed"):
        self.dead = self.dead or why
        for token in self.tokens:
            if not token.done():
                token.set_exception(WorkerLost(self.dead))


class ThreadMachines:
    """`arrivals`: what is different on a machine; `heard` is called with each message before the driver has it."""

    def __init__(self, nodes=TWO, heard=None, **arrivals):
        self.there = {node.id: node for node in nodes}
        self.workers = []
        self.arrivals = arrivals
        self.heard = heard or (lambda thread, message: None)
        self.closed = False

    def nodes(self):
        return list(self.there.values())

    def remove(self, node):
        self.there.pop(node, None)
        for thread in self.workers:
            if thread.node.id == node:
                thread.kill("its node has died")

    def start(self, node, setup, cpus, gpus):
        self.workers.append(Thread(Worker(setup), node, (cpus, gpus)))
        return self.workers[-1]

    def arrive(self, thread):
        from harness.cluster.machine import own_code

        given = self.arrivals.get(thread.node.name, {})
        facts = own_code() | FACTS | given.get("facts", {})
        known = {"refusal": "", "needs": {}, "room": 0} | {name: given[name] for name in given if name != "facts"}
        return self._token(thread, lambda: Arrived(thread.node.name, facts, **known))

    def exchange(self, thread, message):
        return self._token(thread, lambda: thread.worker.exchange(message))

    def _token(self, thread, call):
        token = concurrent.futures.Future()
        thread.tokens = [token]

        def run():
            message = call()
            self.heard(thread, message)
            if not token.done():
                token.set_result(message)

        if thread.dead or thread.node.id not in self.there:
            thread.kill("it is gone")
        else:
            threading.Thread(target=run, daemon=True).start()
        return token

    def ready(self, tokens, seconds):
        return list(concurrent.futures.wait(tokens, seconds, concurrent.futures.FIRST_COMPLETED).done)

    def take(self, token):
        return token.result()

    def end(self, thread):
        thread.kill("it was ended")

    def last_lines(self, node, log):
        return ["Segmentation fault"] if node.id in self.there else []

    def close(self):
        self.closed = True

    @property
    def alive(self):
        return [thread for thread in self.workers if not thread.dead]
