"""The configuration: one frozen tree of strict models, loaded once and passed down.

Every field has a description and an example: they write the sample ``config.yaml`` and stand in
the messages of `node.config.load`. Units are part of the key.
"""

import ipaddress
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, JsonValue, field_validator, model_validator

from node.config.audit import AuditSection
from node.config.match import DEFAULT_CBCT, Match, Rule
from node.config.notify import NotifySection
from node.config.types import (
    AETitleText,
    ConfigPath,
    FrozenMap,
    Name,
    Network,
    Port,
    Seconds,
    Section,
    TlsIdentity,
)
from node.tls import DEFAULT_PORT, Credentials
from pipelines.catalog import PIPELINES
from pipelines.dicom.import_profiles import PROFILES, Action, Profile, TpsProfile

SENDER: Final = "sender"
"""Destination that stands for the peer whose AE title sent the trigger."""


class TlsVersion(StrEnum):
    """The oldest TLS that is spoken (BCP 195)."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class TlsSection(Section):
    """DICOM over TLS: a port of its own, and who we are in both directions."""

    port: int = Field(
        default=DEFAULT_PORT,
        ge=0,
        le=65535,
        description="TCP port for DICOM over TLS, beside the plain one; 0 takes a free one.",
        examples=[DEFAULT_PORT],
    )
    certificate: ConfigPath = Field(
        description="Our certificate (PEM), followed by those between it and its authority.",
        examples=["tls/rtnode.crt"],
    )
    key: ConfigPath = Field(
        description="Its private key (PEM, no passphrase), readable by the node's user alone.",
        examples=["tls/rtnode.key"],
    )
    authorities: ConfigPath = Field(
        description="Certificates (PEM) of the authorities that sign those of the peers; a peer"
        " without such a certificate is refused.",
        examples=["tls/authorities.crt"],
    )
    minimum_version: TlsVersion = Field(
        default=TlsVersion.TLS_1_2,
        description="Oldest version of TLS that is spoken: 1.2 or 1.3. Quote it.",
        examples=["1.2"],
    )

    def credentials(self) -> Credentials:
        """Return what the contexts of both directions are built from."""
        return Credentials(
            certificate=self.certificate,
            key=self.key,
            authorities=self.authorities,
            only_tls_1_3=self.minimum_version is TlsVersion.TLS_1_3,
        )


class NodeSection(Section):
    """The node itself: who it is on the network and where it keeps its data."""

    ae_titles: tuple[AETitleText, ...] = Field(
        min_length=1,
        description="AE titles that peers may call on the one port; the first is ours when we"
        " send. Quote them.",
        examples=[["RTNODE"]],
    )
    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a storage SCP serves the hospital network; peers are listed
        min_length=1,
        description="Address to listen on; 127.0.0.1 serves this machine alone.",
        examples=["0.0.0.0"],  # noqa: S104 - as above
    )
    port: int = Field(
        default=11112,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 takes a free one, for tests.",
        examples=[11112],
    )
    data_dir: ConfigPath = Field(
        description="Folder for received and derived objects and the database. Local disk only,"
        " never NFS or CIFS. Relative paths in this file start at this file's folder.",
        examples=["rtnode-data"],
    )
    database_url: str | None = Field(
        default=None,
        description="URL of the database; without it a SQLite file in data_dir. A PostgreSQL server"
        " is named without its password: `?password_file=` names a file that only the node's user"
        " can read, or the variable RTNODE_DATABASE_PASSWORD holds it.",
        examples=["postgresql://rtnode@db.example.org/rtnode?password_file=/etc/rtnode/password"],
    )
    max_associations: int = Field(
        default=32,
        ge=1,
        le=1000,
        description="Associations at one time; more are rejected for now (congestion).",
        examples=[32],
    )
    max_associations_per_address: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Connections from one IP address at one time.",
        examples=[16],
    )
    tls: TlsSection | None = Field(
        default=None,
        description="DICOM over TLS, for the peers with `tls: true`; without it there is none.",
        examples=[
            {
                "certificate": "tls/rtnode.crt",
                "key": "tls/rtnode.key",
                "authorities": "tls/authorities.crt",
            }
        ],
    )

    @field_validator("database_url")
    @classmethod
    def _is_a_database(cls, value: str | None) -> str | None:
        if value is None or value.startswith("sqlite:///"):
            return value
        parts = urlsplit(value)
        if parts.scheme != "postgresql":
            raise ValueError(
                "begins with sqlite:/// or postgresql://, for example"
                " postgresql://rtnode@db.example.org/rtnode"
            )
        if parts.password is not None:
            raise ValueError(
                "holds a password; put it into a file and name that with ?password_file="
            )
        return value


class StorageSection(Section):
    """Free space on the data volume; nothing is ever deleted to make room."""

    warn_free_gb: float = Field(
        default=20.0, ge=0, description="Warn below this much free space.", examples=[20.0]
    )
    min_free_gb: float = Field(
        default=5.0,
        ge=0,
        description="Refuse to receive below this (status 0xA700; senders try again).",
        examples=[5.0],
    )

    @model_validator(mode="after")
    def _ordered(self) -> "StorageSection":
        if self.warn_free_gb < self.min_free_gb:
            raise ValueError("warn_free_gb must not be below min_free_gb")
        return self


class RetentionSection(Section):
    """What is removed by itself: files of finished work, never their rows in the database.

    A file goes only when no job and no delivery can need it any more: everything made from its
    series has been delivered, canceled or superseded. Nothing is removed to make room for more.
    """

    keep_days: float = Field(
        default=0.0,
        ge=0,
        le=36500,
        description="Files are removed so many days after they came, once all work on them is"
        " delivered; 0 keeps them for ever.",
        examples=[30.0],
    )
    keep_gb: float = Field(
        default=0.0,
        ge=0,
        description="Above this much data the oldest files of delivered work are removed first;"
        " 0 sets no limit.",
        examples=[500.0],
    )


class UnknownPeers(StrEnum):
    """What happens to a calling AE title that no peer has."""

    REFUSE = "refuse"
    ACCEPT = "accept"


class ReceiveSection(Section):
    """Receiving, and when a series counts as whole."""

    unknown_peers: UnknownPeers = Field(
        default=UnknownPeers.REFUSE,
        description="refuse: only peers with `receive: true` may send; accept: anybody may (closed"
        " test networks only).",
        examples=["refuse"],
    )
    quiet_period_s: Seconds = Field(
        default=5.0,
        description="Silence after the sender released its association that counts as complete,"
        " where geometry and references do not decide at once.",
        examples=[5.0],
    )
    quiet_period_open_s: Seconds = Field(
        default=30.0,
        description="The same while an association is open or was broken off.",
        examples=[30.0],
    )
    hold_after_s: Seconds = Field(
        default=600.0,
        description="An incomplete series, or a job that waits for an input, is held and shown"
        " after this time.",
        examples=[600.0],
    )
    max_object_mb: int = Field(
        default=2048, ge=1, le=65536, description="Largest object accepted.", examples=[2048]
    )
    request_timeout_s: Seconds = Field(
        default=8.0,
        description="Time from the TCP connection to a whole association request.",
        examples=[8.0],
    )
    pdu_timeout_s: Seconds = Field(
        default=10.0, description="Time for one whole protocol data unit.", examples=[10.0]
    )
    idle_timeout_s: Seconds = Field(
        default=60.0,
        description="An association without a message for so long is aborted.",
        examples=[60.0],
    )


class ImportSection(Section):
    """What a destination can import: rules that results are held against before they are sent."""

    system: TpsProfile = Field(
        description="Whose rules: " + ", ".join(TpsProfile) + ". `rtnode check --profile NAME`"
        " prints them, with what is known and what is assumed of each.",
        examples=["eclipse"],
    )
    rules: FrozenMap[str, Action] = Field(
        default_factory=dict,
        validate_default=True,
        description="What else than the profile says happens to an object that breaks a rule: fix,"
        " warn, hold or ignore.",
        examples=[{"holes": "warn"}],
    )
    limits: FrozenMap[str, float] = Field(
        default_factory=dict,
        validate_default=True,
        description="Other limits than those of the profile, as your own import tests showed them.",
        examples=[{"contour-points": 4000}],
    )

    @model_validator(mode="after")
    def _adaptable(self) -> "ImportSection":
        self.resolved()
        return self

    def resolved(self) -> Profile:
        """Return the profile with this site's words and limits."""
        return PROFILES[self.system].adapted(self.rules, self.limits)


ImportProfile: TypeAlias = Annotated[
    ImportSection | None,
    Field(
        description="Results are checked against what this system can import before they are sent;"
        " what a rule forbids is fixed, told or held.",
        examples=[{"system": "eclipse"}],
    ),
]
"""The field of each kind of destination."""


class Pull(StrEnum):
    """How what a pipeline lacks is fetched from a peer."""

    NONE = "none"
    MOVE = "move"
    """C-MOVE: the peer opens an association to our port; what hospitals usually allow."""
    GET = "get"
    """C-GET: over the association of the question; the peer needs no way to us."""


class Peer(Section):
    """A remote application entity: it may send to us, or be a destination, or both."""

    ae_title: AETitleText = Field(description="Its AE title. Quote it.", examples=["PACS"])
    host: str | None = Field(
        default=None,
        min_length=1,
        description="Its host name or address; needed to send to it.",
        examples=["pacs.example.org"],
    )
    port: Port | None = Field(
        default=None, description="Its port; needed to send to it.", examples=[104]
    )
    receive: bool = Field(
        default=False, description="true: it may send to the node.", examples=[True]
    )
    addresses: tuple[Network, ...] = Field(
        default=(),
        description="Addresses or networks it sends from; needed with `receive: true`.",
        examples=[["192.0.2.10", "198.51.100.0/24"]],
    )
    tls: bool = Field(
        default=False,
        description="true: DICOM over TLS in both directions and nothing else: it calls the port"
        " under node.tls, and we call it with our certificate.",
        examples=[False],
    )
    tls_name: str | None = Field(
        default=None,
        min_length=1,
        description="Name in its certificate, where that is not `host`.",
        examples=["pacs.example.org"],
    )
    tls_identity: tuple[TlsIdentity, ...] = Field(
        default=(),
        description="What its certificate must be, one of these: sha256:<fingerprint>, CN=<common"
        " name> or DNS:<name>; another peer of the same authority is then refused under this AE"
        " title. Without it any certificate of the authorities will do.",
        examples=[[]],
    )
    commitment: bool = Field(
        default=False,
        description="true: it is asked for storage commitment of what we send; it must know our AE"
        " title, host and port to report, and have `receive: true` and addresses here.",
        examples=[False],
    )
    query: bool = Field(
        default=False,
        description="true: it answers C-FIND; an object whose sending ended without an answer is"
        " then looked up before it is sent again.",
        examples=[False],
    )
    pull: Pull = Field(
        default=Pull.NONE,
        description="How to fetch what a pipeline lacks from it (the structure set of a dose, the"
        " planning CT of a CBCT): none, move or get; needs `query: true`.",
        examples=["none"],
    )
    pull_per_minute: int = Field(
        default=30,
        ge=1,
        le=600,
        description="Most retrievals from it in a minute: an archive serves clinicians first.",
        examples=[30],
    )
    profile: ImportProfile = None
    fallback: Name | None = Field(
        default=None,
        description="A peer or folder that gets the results too when this one does not take them"
        " in time; this one still gets them when it is back.",
        examples=["results"],
    )
    fallback_after_s: Seconds = Field(
        default=300.0,
        description="How long results wait for it before the fallback gets them.",
        examples=[300.0],
    )
    connect_timeout_s: Seconds = Field(
        default=10.0, description="Time to open an association to it.", examples=[10.0]
    )
    response_timeout_s: Seconds = Field(
        default=60.0, description="Time for its answer to one object.", examples=[60.0]
    )

    @model_validator(mode="after")
    def _usable(self) -> "Peer":
        if self.receive and not self.addresses:
            raise ValueError("receive: true needs addresses, for example [192.0.2.10]")
        if (self.host is None) != (self.port is None):
            raise ValueError("host and port go together")
        if not self.receive and self.host is None:
            raise ValueError("give host and port (to send to it) or receive: true, or both")
        needs_address = self.commitment or self.query or self.fallback is not None
        if needs_address and self.host is None:
            raise ValueError("commitment, query and fallback need host and port")
        if self.tls_identity and not self.tls:
            raise ValueError("tls_identity needs tls: true")
        if self.pull is not Pull.NONE and not self.query:
            raise ValueError("pull needs query: true")
        return self


class Folder(Section):
    """A destination folder: results are written there as files."""

    path: ConfigPath = Field(description="Folder for the results.", examples=["rtnode-results"])
    profile: ImportProfile = None


class DicomWeb(Section):
    """A DICOMweb server: results are sent by STOW-RS, what is missing fetched by WADO-RS."""

    url: str = Field(
        pattern=r"^https?://[^\s?#]+$",
        description="Where its services begin; /studies follows.",
        examples=["https://pacs.example.org/dicom-web"],
    )
    secret_file: ConfigPath | None = Field(
        default=None,
        description="File with the password of `user`, or with a bearer token where there is no"
        " user; readable by the node's user alone.",
        examples=["secrets/cloud"],
    )
    user: str | None = Field(
        default=None,
        min_length=1,
        description="User for HTTP Basic; its password is in secret_file.",
        examples=["rtnode"],
    )
    authorities: ConfigPath | None = Field(
        default=None,
        description="Certificates (PEM) of the authorities that sign its certificate; without it"
        " those of the system.",
        examples=["tls/authorities.crt"],
    )
    profile: ImportProfile = None
    pull: bool = Field(
        default=False,
        description="true: what a pipeline lacks is looked for there (QIDO-RS) and fetched"
        " (WADO-RS).",
        examples=[False],
    )
    pull_per_minute: int = Field(
        default=30,
        ge=1,
        le=600,
        description="Most retrievals from it in a minute: an archive serves clinicians first.",
        examples=[30],
    )
    response_timeout_s: Seconds = Field(
        default=60.0, description="Time without any progress.", examples=[60.0]
    )

    @model_validator(mode="after")
    def _safe(self) -> "DicomWeb":
        if self.user is not None and self.secret_file is None:
            raise ValueError("user needs secret_file, with the password")
        if self.secret_file is not None and self.url.startswith("http://"):
            raise ValueError("a secret over http is seen by everybody: use https")
        return self


class RecognizeSection(Section):
    """How the node tells kinds apart that share a modality."""

    cbct: tuple[Rule, ...] = Field(
        default_factory=lambda: DEFAULT_CBCT,
        description="A CT series is a cone-beam CT when any of these rules matches.",
        examples=[
            [{"name": "varian-obi", "keywords": {"ManufacturerModelName": {"contains": "OBI"}}}]
        ],
    )


class Route(Section):
    """What becomes of a complete series; every enabled route that matches makes a job."""

    name: Name = Field(description="Unique name, shown in logs and status.", examples=["contours"])
    enabled: bool = Field(default=True, description="false: the route rests.", examples=[True])
    shadow: bool = Field(
        default=False,
        description="true: jobs run and their results are kept and shown, and nothing is sent; for"
        " a new pipeline, model or setting that is still being judged.",
        examples=[False],
    )
    match: Match = Field(
        description="What the series must be; everything given must hold.",
        examples=[{"kind": ["CT"], "calling_ae_title": ["MODALITY"]}],
    )
    pipeline: str = Field(
        description="The pipeline to run: " + ", ".join(PIPELINES) + ".", examples=["autocontour"]
    )
    settings: FrozenMap[str, JsonValue] = Field(
        default_factory=dict,
        validate_default=True,
        description="Settings of the pipeline that differ from its defaults.",
        examples=[{}],
    )
    priority: int = Field(
        default=50,
        ge=0,
        le=100,
        description="Higher runs first: 100 urgent or online, 50 normal, 10 re-processing.",
        examples=[50],
    )
    destinations: tuple[str, ...] = Field(
        min_length=1,
        description="Where the results go: names of peers or folders, or `sender` (the peer that"
        " sent the series).",
        examples=[["pacs"]],
    )

    def pipeline_settings(self) -> BaseModel:
        """Return the settings as the pipeline's own frozen model; `load` has checked them."""
        model = PIPELINES[self.pipeline].settings
        return model.model_validate_json(json.dumps(dict(self.settings)))


class Limits(Section):
    """What one job of a pipeline may use."""

    timeout_s: Seconds = Field(
        default=1800.0, description="A job is killed after this time.", examples=[1800.0]
    )
    memory_mb: int = Field(
        default=12288,
        ge=256,
        description="Address space of the job's process.",
        examples=[12288],
    )


class PipelinesSection(Section):
    """How jobs run."""

    workers: int = Field(
        default=1, ge=1, le=64, description="Jobs that run at one time.", examples=[1]
    )
    jobs_per_worker: int = Field(
        default=50,
        ge=1,
        description="A worker process is replaced after so many jobs.",
        examples=[50],
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=20,
        description="Attempts after transient failures; then the job is held.",
        examples=[3],
    )
    retry_first_s: Seconds = Field(
        default=5.0, description="Pause before the second attempt; it doubles.", examples=[5.0]
    )
    retry_max_s: Seconds = Field(
        default=300.0, description="Longest pause between attempts.", examples=[300.0]
    )
    limits: FrozenMap[str, Limits] = Field(
        default_factory=dict,
        validate_default=True,
        description="Limits by pipeline name; a pipeline not named here has the defaults.",
        examples=[{"autocontour": {"timeout_s": 600, "memory_mb": 8192}}],
    )

    def limits_for(self, pipeline: str) -> Limits:
        """Return the limits of `pipeline`."""
        return self.limits.get(pipeline, _DEFAULT_LIMITS)


class DeliverySection(Section):
    """Sending results: one queue a destination, with back-off."""

    first_s: Seconds = Field(
        default=5.0, description="Pause before the second attempt; it doubles.", examples=[5.0]
    )
    max_s: Seconds = Field(
        default=900.0, description="Longest pause between attempts.", examples=[900.0]
    )
    give_up_after_days: float = Field(
        default=7.0,
        gt=0,
        le=3650,
        description="An undelivered object is held for a person after so many days; it is never"
        " dropped.",
        examples=[7.0],
    )
    commitment_wait_s: Seconds = Field(
        default=600.0,
        description="A storage commitment report that did not come in this time is asked for"
        " again; the time doubles.",
        examples=[600.0],
    )

    @model_validator(mode="after")
    def _ordered(self) -> "DeliverySection":
        if self.max_s < self.first_s:
            raise ValueError("max_s must not be below first_s")
        return self


class AfterIntake(StrEnum):
    """What happens to a file of a hot folder once its content is durable in the node."""

    KEEP = "keep"
    DELETE = "delete"
    MOVE = "move"


class HotFolder(Section):
    """A watched folder; files that are complete enter like objects that were sent."""

    path: ConfigPath = Field(
        description="Folder to watch, with its subfolders.", examples=["rtnode-drop"]
    )
    calling_ae_title: AETitleText = Field(
        default_factory=lambda: AETitleText("HOTFOLDER"),
        description="Its files count as sent by this AE title, so that routes can match them.",
        examples=["HOTFOLDER"],
    )
    settle_s: Seconds = Field(
        default=3.0,
        description="A file is complete when size and time stayed the same for so long.",
        examples=[3.0],
    )
    after: AfterIntake = Field(
        default=AfterIntake.KEEP,
        description="What becomes of a file once it is durable in the node: keep, delete or move.",
        examples=["keep"],
    )
    done_dir: ConfigPath | None = Field(
        default=None,
        description="Folder for taken files; needed with `after: move`; on the same disk.",
        examples=["rtnode-drop-done"],
    )

    @model_validator(mode="after")
    def _has_target(self) -> "HotFolder":
        if (self.after is AfterIntake.MOVE) != (self.done_dir is not None):
            raise ValueError("after: move and done_dir go together")
        return self


class LogFormat(StrEnum):
    """How a log line looks."""

    PEOPLE = "people"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe line that is written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LogSection(Section):
    """The technical log; it holds UIDs and AE titles, never a patient's name or ID."""

    format: LogFormat = Field(
        default=LogFormat.PEOPLE,
        description="people: one readable line an event; json: one JSON object an event.",
        examples=["people"],
    )
    level: LogLevel = Field(
        default=LogLevel.INFO,
        description="Least severe line: DEBUG, INFO, WARNING or ERROR.",
        examples=["INFO"],
    )


class WebLanguage(StrEnum):
    """What the page speaks before a person chose."""

    ENGLISH = "en"
    JAPANESE = "ja"


class WebTls(Section):
    """HTTPS: needed to listen on anything but this machine itself."""

    certificate: ConfigPath = Field(
        description="Certificate of the page (PEM), followed by those between it and its"
        " authority.",
        examples=["tls/web.crt"],
    )
    key: ConfigPath = Field(
        description="Its private key (PEM, no passphrase), readable by the page's user alone.",
        examples=["tls/web.key"],
    )


class WebSection(Section):
    """The web page: `rtnode web`, a process of its own that reads the ledger and asks the node."""

    listen: str = Field(
        default="127.0.0.1:8080",
        description="Address and port; port 0 takes a free one. Anything but 127.0.0.1 or [::1]"
        " needs tls. Nobody gets in without a user from `rtnode web user add`.",
        examples=["127.0.0.1:8080"],
    )
    tls: WebTls | None = Field(
        default=None,
        description="HTTPS; without it plain HTTP for this machine alone.",
        examples=[{"certificate": "tls/web.crt", "key": "tls/web.key"}],
    )
    users_file: ConfigPath | None = Field(
        default=None,
        description="Users and the hashes of their passwords, written by `rtnode web user`;"
        " without it web-users.json in data_dir.",
        examples=["web-users.json"],
    )
    language: WebLanguage = Field(
        default=WebLanguage.ENGLISH,
        description="Language of the page until a person chooses: en or ja.",
        examples=["en"],
    )
    idle_minutes: float = Field(
        default=30.0,
        gt=0,
        le=720,
        description="A session ends after so many minutes without a click.",
        examples=[30.0],
    )
    session_hours: float = Field(
        default=10.0,
        gt=0,
        le=72,
        description="A session ends after so many hours in any case.",
        examples=[10.0],
    )
    metrics_from: tuple[Network, ...] = Field(
        default=(),
        description="Addresses that may read /metrics without a login, beside this machine; no"
        " patient data is in it.",
        examples=[["192.0.2.30"]],
    )
    viewer_memory_mb: int = Field(
        default=6144,
        ge=512,
        description="Address space of the process that decodes images for the page.",
        examples=[6144],
    )
    viewer_timeout_s: Seconds = Field(
        default=60.0,
        description="It is killed when one picture takes longer.",
        examples=[60.0],
    )

    @field_validator("listen")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) <= 65535):  # noqa: PLR2004 - the largest TCP port
            raise ValueError("write address:port, for example 127.0.0.1:8080 or [::1]:8080")
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            raise ValueError("the address is no IP address; 127.0.0.1 is this machine") from None
        return value

    @model_validator(mode="after")
    def _safe(self) -> "WebSection":
        if self.tls is None and not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError(f"{self.host} is seen from outside: give tls, or listen on 127.0.0.1")
        return self

    @property
    def host(self) -> str:
        """Return the IP address, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Return the TCP port."""
        return int(self.listen.rpartition(":")[2])


class Config(Section):
    """The whole configuration of a node."""

    node: NodeSection = Field(description="The node itself.")
    storage: StorageSection = Field(
        default_factory=StorageSection, description="Free space on the data volume."
    )
    retention: RetentionSection = Field(
        default_factory=RetentionSection,
        description="What is removed by itself after delivery; nothing, unless you say so.",
    )
    receive: ReceiveSection = Field(
        default_factory=ReceiveSection, description="Receiving, and when a series is whole."
    )
    peers: FrozenMap[Name, Peer] = Field(
        default_factory=dict,
        validate_default=True,
        description="Remote application entities by name: senders, destinations, or both.",
    )
    folders: FrozenMap[Name, Folder] = Field(
        default_factory=dict,
        validate_default=True,
        description="Destination folders by name: results are written there as files.",
    )
    dicomweb: FrozenMap[Name, DicomWeb] = Field(
        default_factory=dict,
        validate_default=True,
        description="DICOMweb servers by name: destinations (STOW-RS), and with `pull: true`"
        " archives to fetch from (QIDO-RS, WADO-RS).",
        examples=[{"cloud": {"url": "https://pacs.example.org/dicom-web"}}],
    )
    recognize: RecognizeSection = Field(
        default_factory=RecognizeSection,
        description="How the node tells kinds apart that share a modality.",
    )
    routes: tuple[Route, ...] = Field(
        default=(),
        description="What becomes of a complete series. Every enabled route that matches makes a"
        " job, in this order.",
    )
    pipelines: PipelinesSection = Field(
        default_factory=PipelinesSection, description="How jobs run."
    )
    delivery: DeliverySection = Field(
        default_factory=DeliverySection, description="Sending results."
    )
    hot_folders: tuple[HotFolder, ...] = Field(
        default=(),
        description="Watched folders; files enter like objects that were sent.",
        examples=[[{"path": "rtnode-drop"}]],
    )
    log: LogSection = Field(default_factory=LogSection, description="The technical log.")
    audit: AuditSection | None = Field(
        default=None,
        description="A syslog server that gets the audit trail as DICOM audit messages (PS3.15),"
        " over mutual TLS; without it the trail is kept in the database alone.",
        examples=[
            {
                "host": "audit.example.org",
                "certificate": "tls/rtnode.crt",
                "key": "tls/rtnode.key",
                "authorities": "tls/authorities.crt",
            }
        ],
    )
    notify: NotifySection = Field(
        default_factory=NotifySection,
        description="Who is told when something is held, a destination is down or the node is ill.",
    )
    web: WebSection | None = Field(
        default=None,
        description="The web page for operators and physicists; without this section there is"
        " none.",
        examples=[{}],
    )

    def peer_of(self, ae_title: str) -> tuple[str, Peer] | None:
        """Return name and peer of `ae_title`, or None; AE titles of peers are unique."""
        return next(
            ((name, peer) for name, peer in self.peers.items() if peer.ae_title == ae_title), None
        )

    def import_profiles(self) -> dict[str, ImportSection]:
        """Return destination -> what it can import, for those that say so."""
        destinations: dict[str, Peer | Folder | DicomWeb] = {
            **self.peers, **self.folders, **self.dicomweb
        }  # fmt: skip
        return {
            name: entry.profile for name, entry in destinations.items() if entry.profile is not None
        }

    def matched_keywords(self) -> frozenset[str]:
        """Return every DICOM keyword that a route or rule asks for; the index must keep them."""
        conditions: list[Mapping[str, object]] = [r.keywords for r in self.recognize.cbct]
        conditions += [route.match.keywords for route in self.routes]
        return frozenset(keyword for mapping in conditions for keyword in mapping)


_DEFAULT_LIMITS: Final = Limits()
