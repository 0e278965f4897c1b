"""A small W&B server that the real SDK talks to in online mode. It records what arrives, and fails on command.

History is kept as the file-stream protocol addresses it, by line number: a line sent twice to one place counts as
`overwritten`, a step sent twice in two places shows twice in `steps`.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Outage = Literal["503", "429", "401", "drop", "hang"]
_HISTORY, _SUMMARY = "wandb-history.jsonl", "wandb-summary.json"
_ENTITY = "someone"


@dataclass
class Run:
    """What the server knows of one run."""

    name: str
    project: str
    entity: str
    display_name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    notes: str = ""
    state: str = "running"
    exit_code: int | None = None
    files: dict[str, dict[int, str]] = field(default_factory=dict)  # file -> line number -> line
    overwritten: int = 0
    uploaded: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        return base64.b64encode(f"Run:v1:{self.name}:{self.project}:{self.entity}".encode()).decode()

    def lines(self, file: str) -> list[str]:
        return [line for _, line in sorted(self.files.get(file, {}).items())]

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(_HISTORY)]

    @property
    def steps(self) -> list[int]:
        return [row["_step"] for row in self.history]

    def setting(self, key: str) -> Any:
        """A value of the config, as the SDK wraps it."""
        return self.config[key]["value"]


class Server:
    """Listens on a free port of the loopback interface, from a thread, until it is closed."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.unknown: list[str] = []  # operations it could not answer
        self.refused = 0  # requests that met an outage
        self.deleted: set[str] = set()  # trials whose runs the user deleted: W&B never takes such a run again
        self._outage: Outage | None = None
        self.answers = threading.Event()  # not while it hangs
        self.answers.set()
        self._lock = threading.RLock()
        self._http = _Http(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_": self}))
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which the SDK reports here, online and without delay."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_MODE": "online",
            "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
            "WANDB_X_FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "1",
        }

    @property
    def outage(self) -> Outage | None:
        return self._outage

    @outage.setter
    def outage(self, kind: Outage | None) -> None:
        self._outage, self.refused = kind, 0
        self.answers.clear() if kind == "hang" else self.answers.set()

    def close(self) -> None:
        self.answers.set()
        self._http.shutdown()
        self._http.server_close()

    def one(self, **settings: Any) -> Run:
        """The only run whose `sweep` settings are these."""
        with self._lock:
            found = [run for run in self.runs.values() if settings.items() <= run.setting("sweep").items()]
        assert len(found) == 1, f"{len(found)} runs with {settings}"
        return found[0]

    # ------------------------------------------------------------ GraphQL

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The `data` of a response; None for an operation that is not known."""
        with self._lock:
            method = getattr(self, f"_on_{operation}", None)
            if method is None:
                self.unknown.append(operation)
                return None
            return dict(method(variables))

    def rejects(self, variables: dict[str, Any]) -> bool:
        config = json.loads(variables.get("config") or "{}")
        return config.get("sweep", {}).get("value", {}).get("trial") in self.deleted

    def _find(self, variables: dict[str, Any]) -> Run | None:
        name = next((variables[key] for key in ("name", "runName", "run", "runId") if variables.get(key)), None)
        return next((run for run in self.runs.values() if variables.get("id") == run.id or run.name == name), None)

    def _on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self._find(variables)
        inserted = run is None
        if run is None:
            project, entity = variables.get("project") or "uncategorized", variables.get("entity") or _ENTITY
            run = self.runs[variables["name"]] = Run(variables["name"], project, entity)
        if variables.get("config"):
            run.config = json.loads(variables["config"])
        names = {"groupName": "group", "jobType": "job_type", "displayName": "display_name"}
        for key in ("groupName", "jobType", "tags", "notes", "displayName"):
            if variables.get(key):
                setattr(run, names.get(key, key), variables[key])
        run.state, run.exit_code = "running", None
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self._find(variables)
        entity = {"id": "RW50aXR5OjE=", "name": variables.get("entity") or _ENTITY}
        bucket = self._bucket(run) | self._tail(run) if run else None
        return {"model": {"id": "UHJvamVjdDox", "name": variables.get("project"), "entity": entity, "bucket": bucket}}

    def _bucket(self, run: Run) -> dict[str, Any]:
        entity = {"id": "RW50aXR5OjE=", "name": run.entity}
        return {
            "id": run.id,
            "name": run.name,
            "displayName": run.display_name,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": {"id": "UHJvamVjdDox", "name": run.project, "entity": entity},
            "historyLineCount": len(run.lines(_HISTORY)),
        }

    def _tail(self, run: Run) -> dict[str, Any]:
        summary = run.lines(_SUMMARY)
        return {
            "summaryMetrics": summary[-1] if summary else "{}",
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps(run.lines(_HISTORY)[-1:]),
            "eventsTail": "[]",
            "tags": run.tags,
            "notes": run.notes,
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _on_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}

    def _on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": _ENTITY}}]}
        viewer = {"id": "VXNlcjox", "entity": _ENTITY, "username": _ENTITY, "name": _ENTITY, "email": "someone@example"}
        return {"viewer": viewer | {"flags": "{}", "admin": False, "teams": teams, "apiKeys": {"edges": []}}}

    def _on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _on_ServerInfo(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "latestLocalVersionInfo": None}}

    def _on_RunStoppedStatus(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"stopped": False}}}

    def _on_OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    # ------------------------------------------------------------ the file stream

    def stream(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Lines of a run's files, and at last how it ended."""
        with self._lock:
            run = self.runs.get(name)
            if run is None:
                return 404, {"error": f"run {name} not found"}
            for file, chunk in (body.get("files") or {}).items():
                lines = run.files.setdefault(file, {})
                for place, line in enumerate(chunk.get("content") or [], chunk.get("offset", 0)):
                    run.overwritten += file == _HISTORY and place in lines
                    lines[place] = line
            if body.get("complete"):
                run.exit_code = body.get("exitcode")
                run.state = "failed" if run.exit_code else "finished"
            return 200, {"exitcode": None, "limits": {}}

    def meets_outage(self) -> Outage | None:
        with self._lock:
            self.refused += self._outage is not None
            return self._outage


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_: Any) -> None:
        """A client that is killed leaves its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: Server

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        if not self._fails():
            self._send(404, {"error": "not found"})

    def do_PUT(self) -> None:
        self._body()
        if not self._fails():
            self._send(200, {})

    def do_POST(self) -> None:
        body, path = json.loads(self._body() or b"{}"), self.path.split("?")[0]
        if self._fails():
            return
        if path == "/graphql":
            named = re.search(r"(?:query|mutation)\s+(\w+)", body.get("query", ""))
            operation = body.get("operationName") or (named[1] if named else "?")
            if operation == "UpsertBucket" and self.server_.rejects(body["variables"]):
                self._send(409, {"errors": [{"message": "run was previously created and deleted"}]})
                return
            data = self.server_.answer(operation, body.get("variables") or {})
            errors = [] if data is not None else [{"message": f"unknown operation {operation}"}]
            self._send(200, {"data": data} | ({"errors": errors} if errors else {}))
        elif found := re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            self._send(*self.server_.stream(found[1], body))
        else:
            self._send(404, {"error": "not found"})

    def _fails(self) -> bool:
        kind = self.server_.meets_outage()
        self.server_.answers.wait()
        if kind in ("drop", "hang"):
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster
            self.close_connection = True
        elif kind is not None:
            limits = {"RateLimit-Limit": "10", "RateLimit-Remaining": "0", "RateLimit-Reset": "1"}
            self._send(int(kind), {"error": "outage"}, limits if kind == "429" else {})
        return kind is not None

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = self._chunks()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, code: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
