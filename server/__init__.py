"""What Parley does: sessions, turns, agents, transports and the application that wires them."""
