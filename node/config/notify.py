"""The section ``notify``: who is told when something needs a person."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from node.config.types import ConfigPath, Seconds, Section


class EmailSection(Section):
    """Mail by SMTP."""

    host: str = Field(min_length=1, description="SMTP server.", examples=["mail.example.org"])
    port: int = Field(default=25, ge=1, le=65535, description="Its TCP port.", examples=[25])
    security: Literal["none", "starttls", "tls"] = Field(
        default="starttls",
        description="none, starttls, or tls from the first byte (port 465).",
        examples=["starttls"],
    )
    sender: str = Field(
        min_length=3, description="Address in From.", examples=["rtnode@example.org"]
    )
    to: tuple[str, ...] = Field(
        min_length=1, description="Who is told.", examples=[["physics@example.org"]]
    )
    user: str | None = Field(
        default=None, description="Login name; without it none is used.", examples=["rtnode"]
    )
    password_file: ConfigPath | None = Field(
        default=None,
        description="File with the password, readable by the node's user alone.",
        examples=["/etc/rtnode/smtp-password"],
    )

    @model_validator(mode="after")
    def _complete(self) -> "EmailSection":
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


class NotifySection(Section):
    """Who is told when something is held, a destination is down or the node is ill."""

    email: EmailSection | None = Field(
        default=None,
        description="Mail by SMTP; without it none is sent.",
        examples=[
            {
                "host": "mail.example.org",
                "sender": "rtnode@example.org",
                "to": ["physics@example.org"],
            }
        ],
    )
    webhook: str | None = Field(
        default=None,
        description="URL that gets a POST with JSON {node, text, items}.",
        examples=["https://chat.example.org/hooks/rtnode"],
    )
    every_s: Seconds = Field(
        default=300.0,
        description="Shortest time between two messages; what happens meanwhile comes together.",
        examples=[300.0],
    )
    destination_down_after_s: Seconds = Field(
        default=900.0,
        description="A destination counts as down when a result has waited for it so long.",
        examples=[900.0],
    )

    @field_validator("webhook")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("a webhook is an http or https URL")
        return value
