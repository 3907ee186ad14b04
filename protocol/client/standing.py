"""What is open in a session, and who is there, as far as the connection has told."""

from __future__ import annotations

from typing import Final

from protocol.events import (
    ApprovalRequired,
    ApprovalResolved,
    ClientInfo,
    Connected,
    Payload,
    PresenceChanged,
    ResyncRequired,
    TaskCompleted,
)

__all__ = ["Standing"]

#: Of each; the oldest are forgotten.
_MOST: Final = 1000


class Standing:
    """Approvals that nobody has decided, and the clients that are here; `notice` is told of every event as it comes."""

    def __init__(self) -> None:
        self.approvals: dict[str, ApprovalRequired] = {}
        self.clients: dict[str, ClientInfo] = {}

    def notice(self, payload: Payload | None) -> None:
        """Take an event."""
        match payload:
            case ApprovalRequired(call_id=call_id):
                self.approvals[call_id] = payload
                _forget(self.approvals)
            case ApprovalResolved(call_id=call_id):
                self.approvals.pop(call_id, None)
            case TaskCompleted(turn_id=turn_id):
                self.approvals = {key: one for key, one in self.approvals.items() if one.turn_id != turn_id}
            case ResyncRequired(snapshot=snapshot):
                open_ones = [] if snapshot is None else snapshot.approvals
                self.approvals = {one.call_id: one for one in open_ones[-_MOST:]}
            case Connected(clients=clients):
                self.clients = {client.client_id: client for client in clients[-_MOST:]}
            case PresenceChanged(change="left", client=client):
                self.clients.pop(client.client_id, None)
            case PresenceChanged(client=client):
                self.clients[client.client_id] = client
                _forget(self.clients)
            case _:
                pass


def _forget(known: dict[str, ApprovalRequired] | dict[str, ClientInfo]) -> None:
    while len(known) > _MOST:
        del known[next(iter(known))]
