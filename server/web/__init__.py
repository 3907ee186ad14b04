"""What browsers load from us: the console's page and the client library."""
