"""What the routing rules look at: facts gathered by others, without any I/O of their own."""

from dataclasses import dataclass

from node.config.match import Kind
from node.domain import AETitle, Instance, Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A series with its instances, as selection sees it."""

    series_instance_uid: Uid
    patient_key: str
    kind: Kind
    complete: bool
    """False while it is RECEIVING and when it is INCOMPLETE."""
    instances: tuple[Instance, ...]
    """Scouts are set aside."""
    ours: bool = False
    """This node made it, and it came back."""
    conflicts: tuple[str, ...] = ()
    """SOP Instance UIDs under which a second content arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How a series came in, in monotonic seconds; from zero after a restart."""

    quiet_s: float
    """Since the last object of it, or the last change of an association that delivered to it."""
    open_associations: int
    """Associations that delivered to it and are still open."""
    interrupted: bool
    """An association that delivered to it broke or brought objects that we refused, and none that
    began later was released with all that it brought."""
    one_by_one: bool
    """No association brought more than about one object: the end of one says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who sent the trigger series, for rules about AE titles."""

    calling_ae_title: AETitle
    called_ae_title: AETitle
