"""What may be said about TLS."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["TlsSettings"]


class TlsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTPS. With a certificate the server speaks it and nothing else; renewed files are taken up by themselves."""

    #: The certificate in PEM, and behind it those between it and its root (`fullchain.pem`).
    certificate_file: Annotated[str, Meta(min_length=1, examples=["/etc/parley/fullchain.pem"])] | None = None
    #: Its private key in PEM; when missing, it stands in the certificate's file.
    key_file: Annotated[str, Meta(min_length=1, examples=["/etc/parley/privkey.pem"])] | None = None
    #: What the key is encrypted with, if it is.
    key_password: Annotated[str, Meta(min_length=1)] | None = None
    #: A file that holds that, in place of `key_password`.
    key_password_file: Annotated[str, Meta(min_length=1, examples=["/run/secrets/parley-key"])] | None = None
    #: The oldest version of TLS that is spoken.
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    #: How often the files are looked at for renewed ones, in seconds. SIGHUP has them looked at at once.
    reload_interval: Annotated[float, Meta(ge=1, le=86_400)] = 60.0
    #: How long browsers are to insist on HTTPS for this host (HSTS), in seconds; 0 does not ask them to.
    hsts_max_age: Annotated[int, Meta(ge=0, le=63_072_000)] = 0

    def __post_init__(self) -> None:
        if self.certificate_file is None:
            for name in ("key_file", "key_password", "key_password_file"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: it goes with a certificate_file, and there is none")
        if self.key_password is not None and self.key_password_file is not None:
            raise ValueError("key_password_file: give it or key_password, not both")

    @property
    def enabled(self) -> bool:
        """Whether TLS is spoken."""
        return self.certificate_file is not None

    def __repr__(self) -> str:
        return f"TlsSettings(certificate_file={self.certificate_file!r}, key_file={self.key_file!r})"
