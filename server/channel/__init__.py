"""The channel: from committed events to clients' sockets, and from clients' commands to the services."""
