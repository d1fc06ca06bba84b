"""A real server on a free port, in a thread of the test's own process."""

import threading

import httpx
import openai

from hippodrome.serve.app import create_app
from hippodrome.serve.process import Process
from hippodrome.serve.settings import Settings


class Running:
    """A server in a thread of this process, and how to speak to it."""

    def __init__(self, run, **settings):
        listening = threading.Event()
        self.model = run.model
        self.app = create_app(run, Settings(name="tiny", grace=5.0, **settings))
        self.service = self.app.state.service

        def ready(address):
            self.address = address
            listening.set()

        self.process = Process(self.app, "127.0.0.1", 0, ready)
        self.thread = threading.Thread(target=self.process.run)
        self.thread.start()
        assert listening.wait(30)
        key = settings.get("api_key") or "none"
        self.client = openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0)
        self.http = httpx.Client(base_url=self.address, timeout=30)

    def metric(self, name):
        """The sum of a metric over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name
        )

    def stop(self):
        self.process.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
