"""What a log says of turns with tools, as events: for scenes that are hard to bring about or must look the same."""

from __future__ import annotations

from typing import Any

from storage.ids import new_id

Event = tuple[str, dict[str, Any]]

WRITE_FILE = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "minLength": 1, "description": "Where, from the workspace's root"},
        "content": {"type": "string"},
        "create_dirs": {"type": "boolean"},
    },
    "required": ["path", "content"],
    "additionalProperties": False,
}


class Scene:
    """One turn, told step by step; `events` is what came of it."""

    def __init__(self, agent: str = "coder") -> None:
        self.agent = agent
        self.turn = str(new_id())
        self.events: list[Event] = []

    def tell(self, kind: str, **payload: Any) -> None:
        """Add one event."""
        self.events.append((kind, payload))

    def asks(self, text: str) -> None:
        """A person says something, and a turn begins."""
        message = str(new_id())
        self.tell("message_created", message_id=message, role="user", content=text, turn_id=self.turn)
        self.tell("task_started", turn_id=self.turn, message_id=message, **self._agent())

    def says(self, text: str, *calls: tuple[str, dict[str, Any]], executor: str = "client", **more: Any) -> list[str]:
        """The agent says something, and calls tools; their ids."""
        message, ids = str(new_id()), [str(new_id()) for _ in calls]
        written = [
            {"call_id": call, "name": name, "arguments": repr(given)}
            for call, (name, given) in zip(ids, calls, strict=True)
        ]
        payload = {"message_id": message, "role": "assistant", "content": text, "turn_id": self.turn, **self._agent()}
        reason = "tool_calls" if calls else "stop"
        self.tell("message_created", **payload, finish_reason=reason, tool_calls=written, **more)
        for call, (name, given) in zip(ids, calls, strict=True):
            about = {"call_id": call, "turn_id": self.turn, "message_id": message, "name": name, "arguments": given}
            self.tell("tool_call", **about, executor=executor)
        return ids

    def needs_approval(self, call: str, **more: Any) -> None:
        """The call waits for a person."""
        about = next(payload for kind, payload in self.events if kind == "tool_call" and payload["call_id"] == call)
        question = {
            "approval_id": str(new_id()),
            "arguments_hash": "0" * 64,
            "allowed_decisions": ["approve", "edit", "reject", "respond"],
            "expires_at": None,
            "agent_type": self.agent,
            "parameters": WRITE_FILE,
            "rule": "write_file asks",
            "reason": "It changes a file.",
        }
        self.tell("approval_required", **{k: v for k, v in about.items() if k != "executor"}, **{**question, **more})

    def resolved(self, call: str, decision: str, **more: Any) -> None:
        """Somebody decided, or something did."""
        asked = next(p for kind, p in self.events if kind == "approval_required" and p["call_id"] == call)
        who = {"cause": "person", "user": "anna", "client_id": "phone", "arguments": asked["arguments"]}
        about = {key: asked[key] for key in ("approval_id", "call_id", "turn_id")}
        self.tell("approval_resolved", **about, decision=decision, **{**who, **more})

    def runs(self, call: str, client: str | None = None) -> None:
        """Somebody runs the call; without a client the server does."""
        about = next(payload for kind, payload in self.events if kind == "tool_call" and payload["call_id"] == call)
        fields = {key: about[key] for key in ("call_id", "turn_id", "name", "arguments")}
        self.tell("tool_dispatched", **fields, deadline=None, **({"client_id": client} if client else {}))

    def returns(self, call: str, result: Any = None, error: str | None = None, took: int = 340) -> None:
        """The call has its result."""
        about = next(payload for kind, payload in self.events if kind == "tool_call" and payload["call_id"] == call)
        fields = {key: about[key] for key in ("call_id", "turn_id", "name", "executor")}
        self.tell("tool_result", **fields, result=result, duration_ms=took, **({"error": error} if error else {}))

    def ends(self, status: str = "completed", **more: Any) -> None:
        """The turn is over."""
        usage = {"prompt_tokens": 1200, "completion_tokens": 134, "total_tokens": 1334, "cost": 0.0123}
        self.tell("task_completed", turn_id=self.turn, status=status, usage=usage, steps=2, duration_ms=6400, **more)

    def _agent(self) -> dict[str, str]:
        return {"agent_type": self.agent, "agent_name": self.agent.capitalize(), "agent_id": str(new_id())}
