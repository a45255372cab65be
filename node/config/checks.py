"""What no single section can know: names that must exist elsewhere, and twins.

The checks read the plain tree, not the models, so that they speak also where another part of the
file is wrong; a value of the wrong shape is passed over here, because the models report it.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from node.config.document import Location
from node.config.model import SENDER
from node.config.suggest import did_you_mean
from pipelines.catalog import PIPELINES

Finding = tuple[Location, str]
"""Where, and what is wrong."""


def cross_checks(tree: JsonValue) -> Iterator[Finding]:
    """Yield every contradiction between the sections of `tree`."""
    root = _map(tree)
    yield from _peers(root)
    yield from _destination_names(root)
    yield from _routes(root)
    yield from _limits(root)
    yield from _hot_folders(root)


def _peers(root: Mapping[str, JsonValue]) -> Iterator[Finding]:
    ours = _list(_map(root.get("node")).get("ae_titles"))
    for i, ae_title in enumerate(ours):
        if ae_title in ours[:i]:
            yield ("node", "ae_titles", i), f"'{ae_title}' is given twice"
    owner: dict[str, str] = {}
    for name, peer in _map(root.get("peers")).items():
        here: Location = ("peers", name)
        if _map(peer).get("tls") is True and not _map(_map(root.get("node")).get("tls")):
            yield (*here, "tls"), "needs our certificate and key under node.tls"
        yield from _fallback(root, name, _map(peer).get("fallback"), here)
        yield from _fallback_profile(root, _map(peer), here)
        ae_title = _map(peer).get("ae_title")
        if not isinstance(ae_title, str):
            continue
        if ae_title in owner:
            yield (*here, "ae_title"), f"'{ae_title}' is the AE title of peers.{owner[ae_title]}"
        owner.setdefault(ae_title, name)


def _destination_names(root: Mapping[str, JsonValue]) -> Iterator[Finding]:
    """Find names that stand for two destinations, or for the sender."""
    kinds = {"peers": "peer", "folders": "folder", "dicomweb": "DICOMweb server"}
    owner: dict[str, str] = {}
    for section, kind in kinds.items():
        for name in _map(root.get(section)):
            here: Location = (section, name)
            if name == SENDER:
                yield here, f"'{SENDER}' stands for the peer that sent the series; use another name"
            if name in owner:
                yield here, f"'{name}' is a {owner[name]} already; use another name"
            owner.setdefault(name, kind)


def _fallback(
    root: Mapping[str, JsonValue], name: str, fallback: JsonValue, here: Location
) -> Iterator[Finding]:
    """Find a fallback that is nowhere, cannot be sent to, or is the peer itself."""
    peers, folders = _map(root.get("peers")), _others(root)
    place = (*here, "fallback")
    if not isinstance(fallback, str) or fallback in folders:
        return
    if fallback == name:
        yield place, "a peer is no fallback of itself"
    elif fallback not in peers:
        yield (
            place,
            f"'{fallback}' is no peer and no folder{did_you_mean(fallback, [*peers, *folders])}",
        )
    elif _map(peers[fallback]).get("host") is None:
        yield place, f"peers.{fallback} has no host and port to send to"


def _fallback_profile(
    root: Mapping[str, JsonValue], peer: Mapping[str, JsonValue], here: Location
) -> Iterator[Finding]:
    """Find a fallback that can import other things: it gets what was prepared for the peer."""
    fallback = peer.get("fallback")
    known = {**_map(root.get("peers")), **_others(root)}
    if isinstance(fallback, str) and fallback in known:
        theirs = _map(known[fallback]).get("profile")
        if theirs is not None and theirs != peer.get("profile"):
            yield (
                (*here, "fallback"),
                f"'{fallback}' has another profile, and gets what was prepared for this one; give"
                " both the same, or the fallback none",
            )


def _routes(root: Mapping[str, JsonValue]) -> Iterator[Finding]:
    names: set[str] = set()
    for i, entry in enumerate(_list(root.get("routes"))):
        route = _map(entry)
        here: Location = ("routes", i)
        name, pipeline = route.get("name"), route.get("pipeline")
        if isinstance(name, str):
            if name in names:
                yield (*here, "name"), f"another route is called '{name}'"
            names.add(name)
        if isinstance(pipeline, str) and pipeline not in PIPELINES:
            yield (*here, "pipeline"), _no_pipeline(pipeline)
        yield from _destinations(root, route, here)
        yield from _titles(root, _map(route.get("match")), (*here, "match"))


def _destinations(
    root: Mapping[str, JsonValue], route: Mapping[str, JsonValue], here: Location
) -> Iterator[Finding]:
    peers, folders = _map(root.get("peers")), _others(root)
    destinations = _list(route.get("destinations"))
    for i, name in enumerate(destinations):
        place = (*here, "destinations", i)
        if not isinstance(name, str):
            continue
        if name in destinations[:i]:
            yield place, f"'{name}' is given twice"
        elif name in peers:
            if _map(peers[name]).get("host") is None:
                yield place, f"peers.{name} has no host and port to send to"
        elif name == SENDER:
            yield from _senders(peers, _map(route.get("match")), place)
        elif name not in folders:
            known = [*peers, *folders, SENDER]
            yield place, f"'{name}' is no peer and no folder{did_you_mean(name, known)}"


def _senders(
    peers: Mapping[str, JsonValue], match: Mapping[str, JsonValue], place: Location
) -> Iterator[Finding]:
    """Find senders named by the route that nothing can be sent to."""
    calling = _list(match.get("calling_ae_title"))
    for name, entry in peers.items():
        peer = _map(entry)
        if peer.get("ae_title") in calling and peer.get("host") is None:
            yield place, f"the sender may be peers.{name}, which has no host and port to send to"


def _titles(
    root: Mapping[str, JsonValue], match: Mapping[str, JsonValue], here: Location
) -> Iterator[Finding]:
    """Find AE titles that a route waits for and that can never arrive."""
    called = _texts(_map(root.get("node")).get("ae_titles"))
    for i, ae_title in enumerate(_list(match.get("called_ae_title"))):
        if isinstance(ae_title, str) and ae_title not in called:
            message = f"'{ae_title}' is not under node.ae_titles{did_you_mean(ae_title, called)}"
            yield (*here, "called_ae_title", i), message
    if _map(root.get("receive")).get("unknown_peers") == "accept":
        return
    senders = [
        p.get("ae_title")
        for p in map(_map, _map(root.get("peers")).values())
        if p.get("receive") is True
    ]
    senders += [
        _map(entry).get("calling_ae_title", "HOTFOLDER") for entry in _list(root.get("hot_folders"))
    ]
    known = _texts(senders)
    for i, ae_title in enumerate(_list(match.get("calling_ae_title"))):
        if isinstance(ae_title, str) and ae_title not in known:
            message = f"'{ae_title}' is no peer with `receive: true`{did_you_mean(ae_title, known)}"
            yield (*here, "calling_ae_title", i), message


def _limits(root: Mapping[str, JsonValue]) -> Iterator[Finding]:
    for name in _map(_map(root.get("pipelines")).get("limits")):
        if name not in PIPELINES:
            yield ("pipelines", "limits", name), _no_pipeline(name)


def _hot_folders(root: Mapping[str, JsonValue]) -> Iterator[Finding]:
    paths: set[str] = set()
    for i, entry in enumerate(_list(root.get("hot_folders"))):
        path = _map(entry).get("path")
        if isinstance(path, str):
            if path in paths:
                yield ("hot_folders", i, "path"), f"'{path}' is watched already"
            paths.add(path)


def _others(root: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the destinations that are no peers."""
    return {**_map(root.get("folders")), **_map(root.get("dicomweb"))}


def _no_pipeline(name: str) -> str:
    return f"'{name}' is not one of {', '.join(PIPELINES)}{did_you_mean(name, PIPELINES)}"


def _map(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _list(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
