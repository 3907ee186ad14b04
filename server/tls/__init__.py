"""HTTPS: the certificate, looked at before it is shown to anybody, and renewed without a restart."""
