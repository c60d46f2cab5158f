"""As much of W&B's GraphQL server as `wandb sweep` and `wandb agent` ask for, on a loopback port."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class SweepServer:
    """Takes one sweep and hands its given runs out to the agent, then tells it to stop."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self._runs = list(runs)
        self.config: str | None = None
        self.asked: list[str] = []
        self.url = ""

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the data for a query."""
        self.asked.append(query.split("(")[0].split("{")[0].strip())
        project = {"id": "P", "name": "fires", "entity": {"id": "E", "name": "me"}}
        if "upsertSweep" in query:
            self.config = variables["config"]
            return {"upsertSweep": {"sweep": {"name": "sweep1", "project": project}, "configValidationWarnings": []}}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "A", "name": "agent"}}}
        if "agentHeartbeat" in query:
            return {"agentHeartbeat": {"agent": {"id": "A"}, "commands": json.dumps(self._commands(variables))}}
        sweep = {"id": "S", "name": "sweep1", "method": "grid", "state": "RUNNING", "config": self.config}
        sweep |= {"description": None, "heartbeatAt": None, "updatedAt": None, "createdAt": None, "bestLoss": None}
        runs = {"edges": [], "totalCount": 0, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        viewer = {"id": "V", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "project": project | {"sweep": sweep | {"runs": runs}}, "serverInfo": None}

    def _commands(self, variables: dict[str, Any]) -> list[dict[str, Any]]:
        if json.loads(variables["runState"]):
            return []
        if not self._runs:
            return [{"type": "exit"}]
        args = {name: {"value": value} for name, value in self._runs.pop(0).items()}
        run = f"run{len(self._runs)}"
        return [{"type": "run", "id": run, "run_id": run, "args": args, "program": "program.py"}]

    @contextlib.contextmanager
    def running(self) -> Iterator[SweepServer]:
        """Serve until the block ends."""
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer: dict[str, Any] = {}
                if self.path == "/graphql":
                    asked = json.loads(body)
                    answer = {"data": ours.answer(asked["query"], asked.get("variables") or {})}
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
