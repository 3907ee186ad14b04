"""What operators see: the log."""
