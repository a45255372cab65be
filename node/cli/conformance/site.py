"""The tables of the conformance statement that one configuration decides."""

from collections.abc import Callable, Sequence
from typing import Final

from node.cli.conformance.markdown import table
from node.cli.conformance.objects import Created
from node.cli.settings import masked
from node.config.model import Config, Peer, Pull, UnknownPeers
from node.scp import contexts
from node.scu.archives import RETRIEVED_CLASSES

_PARAMETERS: Final = (
    "node.max_associations",
    "node.max_associations_per_address",
    "receive.request_timeout_s",
    "receive.pdu_timeout_s",
    "receive.idle_timeout_s",
    "receive.max_object_mb",
    "receive.quiet_period_s",
    "receive.quiet_period_open_s",
    "receive.hold_after_s",
    "storage.min_free_gb",
    "delivery.first_s",
    "delivery.max_s",
    "delivery.give_up_after_days",
    "delivery.commitment_wait_s",
)
"""Settings that a peer can notice."""

_SERVICES: Final[tuple[tuple[str, str, str, Callable[[Config], bool]], ...]] = (
    ("Verification", "yes", "yes", lambda _: True),
    ("Storage", "yes", "yes", lambda _: True),
    ("Storage Commitment Push Model", "yes (`peers.*.commitment`)", "yes",
     lambda c: any(p.commitment for p in c.peers.values())),
    ("Query/Retrieve, Study Root: FIND", "yes (`peers.*.query`)", "no",
     lambda c: any(p.query for p in c.peers.values())),
    ("Query/Retrieve, Study Root: MOVE", "yes (`peers.*.pull: move`)", "no",
     lambda c: any(p.pull is Pull.MOVE for p in c.peers.values())),
    ("Query/Retrieve, Study Root: GET", "yes (`peers.*.pull: get`)", "no",
     lambda c: any(p.pull is Pull.GET for p in c.peers.values())),
    ("DICOMweb: STOW-RS, QIDO-RS by instance", "yes, user agent (`dicomweb`)", "no",
     lambda c: bool(c.dicomweb)),
    ("DICOMweb: QIDO-RS search, WADO-RS", "yes, user agent (`dicomweb.*.pull`)", "no",
     lambda c: any(web.pull for web in c.dicomweb.values())),
    ("Modality Worklist, MPPS, UPS, Instance Availability Notification, Print", "no", "no",
     lambda _: False),
)  # fmt: skip
"""Service, as user, as provider, whether the user's part is in use in a configuration."""


def of(config: Config, created: Sequence[Created]) -> dict[str, object]:
    """Return name in the template -> table or words."""
    unknown = config.receive.unknown_peers is UnknownPeers.ACCEPT
    return {
        "ae_titles": config.node.ae_titles,
        "content": content(config, created),
        "services": table(
            ("service", "user (SCU)", "provider (SCP)", "used as user here"),
            [(name, scu, scp, _yes(used(config))) for name, scu, scp, used in _SERVICES],
        ),
        "local": _local(config),
        "peers": _peers(config),
        "places": _places(config),
        "parameters": table(
            ("setting", "here"), [(f"`{key}`", f"{_value(config, key):g}") for key in _PARAMETERS]
        ),
        "routes": _routes(config),
        "unknown": "**accepted, whoever they are**" if unknown else "rejected",
        "tls": "It is on here." if config.node.tls else "It is off here.",
        "audit": f"here to {config.audit.host}:{config.audit.port}" if config.audit else "off here",
        "retention": _retention(config),
    }


def content(config: Config, created: Sequence[Created]) -> str:
    """Return the storage classes with what the node does with each."""
    here = {c.made_by(route) for c in created for route in config.routes}
    rows = []
    for uid, name in contexts.STORAGE_CLASSES.items():
        makers = [told for c in created for told in c.makers(uid)]
        rows.append(
            (
                name,
                ", ".join(makers),
                _yes(uid in here) if makers else "",
                "results" if makers else "by hand",
                "yes",
                _yes(uid in RETRIEVED_CLASSES),
            )
        )
    head = (
        "SOP class",
        "create",
        "created here",
        "send (SCU, STOW-RS)",
        "receive (SCP)",
        "retrieve",
    )
    return table(head, rows)


def _local(config: Config) -> str:
    node = config.node
    ports = f"{node.port}" + (f"; TLS {node.tls.port}" if node.tls else "")
    rows = [
        (title, node.host, ports, "called and calling" if i == 0 else "called")
        for i, title in enumerate(node.ae_titles)
    ]
    return table(("AE title (`node.ae_titles`)", "listens on", "port", "use"), rows)


def _peers(config: Config) -> str:
    if not config.peers:
        return "None.\n"
    return table(
        ("peer", "AE title", "may send, from", "is sent to, at", "TLS", "services"),
        [
            (
                name,
                peer.ae_title,
                ", ".join(map(str, peer.addresses)) if peer.receive else "no",
                f"{peer.host}:{peer.port}" if peer.host else "no",
                "certificates bound to it" if peer.tls_identity else _yes(peer.tls),
                _services(peer),
            )
            for name, peer in config.peers.items()
        ],
    )


def _services(peer: Peer) -> str:
    words = [
        "storage from it" if peer.receive else "",
        "storage to it" if peer.host else "",
        "commitment by it" if peer.commitment else "",
        "query" if peer.query else "",
        f"retrieve by C-{peer.pull.value.upper()}" if peer.pull is not Pull.NONE else "",
    ]
    return ", ".join(word for word in words if word)


def _places(config: Config) -> str:
    rows = [
        *((name, "destination folder", str(f.path.name)) for name, f in config.folders.items()),
        *((name, "DICOMweb server", masked(web.url)) for name, web in config.dicomweb.items()),
        *(("-", f"watched folder, as {f.calling_ae_title}", str(f.path.name))
          for f in config.hot_folders),
    ]  # fmt: skip
    return table(("name", "kind", "where"), rows) if rows else "None.\n"


def _routes(config: Config) -> str:
    rows = [
        (
            route.name,
            route.pipeline,
            _value_words(route.match.model_dump(mode="json", exclude_defaults=True)),
            "nothing is sent (shadow)" if route.shadow else ", ".join(route.destinations),
            _yes(route.enabled),
        )
        for route in config.routes
    ]
    head = ("route", "pipeline", "takes a series where", "destinations", "enabled")
    return table(head, rows) if rows else "None: objects are received and kept.\n"


def _retention(config: Config) -> str:
    rules = config.retention
    words = [
        f"after {rules.keep_days:g} days" if rules.keep_days else "",
        f"above {rules.keep_gb:g} GB" if rules.keep_gb else "",
    ]
    return " and ".join(word for word in words if word) or "nothing, ever"


def _value(config: Config, key: str) -> float:
    section, name = key.split(".")
    return float(getattr(getattr(config, section), name))


def _value_words(tree: dict[str, object]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in tree.items()).replace("'", "")


def _yes(value: object) -> str:
    return "yes" if value else "no"
