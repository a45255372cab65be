"""What is wanted follows the references, ends at what is here, and names nothing else."""

from dataclasses import replace

import pytest

from node.domain import Reference, Uid
from node.routing.wants import wanted
from pipelines.catalog import PIPELINES
from tests.routing_kit import candidate, instance, refs

DOSE = PIPELINES["dose_radiomics"]
SYNTHETIC = PIPELINES["synthetic_ct"]


def dose(**more):
    return instance("d.1", modality="RTDOSE", series="s.d", **more)


def plan(**more):
    references = refs("STRUCTURE_SET", "s.1")
    return instance("p.1", modality="RTPLAN", series="s.p", references=references, **more)


def structures(**more):
    drawn = (Reference(kind="IMAGE", uid=Uid("c.1"), within=Uid("s.c")),)
    return instance("s.1", modality="RTSTRUCT", series="s.s", references=drawn, **more)


def of(spec, trigger, *others):
    return wanted(spec, (trigger,), [candidate([i]) for i in (trigger, *others)])


def test_a_dose_wants_its_plan_then_its_structures_then_its_images():
    trigger = dose(references=refs("PLAN", "p.1"))

    assert of(DOSE, trigger).instances == {"p.1"}
    assert of(DOSE, trigger, plan()).instances == {"s.1"}
    last = of(DOSE, trigger, plan(), structures())
    assert (last.instances, last.series) == (frozenset(), {"s.c"})
    assert not of(DOSE, trigger, plan(), structures(), instance("c.1", series="s.c"))


def test_a_dose_that_names_nothing_wants_nothing():
    assert not of(DOSE, dose())


def test_a_dose_that_names_its_structures_itself_wants_them_beside_its_plan():
    trigger = dose(references=(*refs("PLAN", "p.1"), *refs("STRUCTURE_SET", "s.9")))

    assert of(DOSE, trigger).instances == {"p.1", "s.9"}


def test_what_another_patient_has_does_not_count():
    trigger = dose(references=refs("PLAN", "p.1"))
    stranger = plan(patient="patient-b")

    assert of(DOSE, trigger, stranger).instances == {"p.1"}


@pytest.fixture
def cbct():
    return instance("b.1", series="s.b", frame="f.b", Manufacturer="Varian Medical Systems",
                    ManufacturerModelName="OBI Cone-beam CT")  # fmt: skip


def test_a_cone_beam_ct_wants_a_ct_in_its_frame_and_registrations(cbct):
    want = of(SYNTHETIC, cbct)

    assert (want.frames, want.registrations) == ({"f.b"}, True)


def test_a_cone_beam_ct_wants_the_structures_of_the_plan(cbct):
    assert of(SYNTHETIC, cbct, plan()).instances == {"s.1"}
    assert of(SYNTHETIC, cbct, plan(), structures()).instances == frozenset()
    assert of(SYNTHETIC, cbct).instances == frozenset()


def test_a_registration_adds_the_other_frame_and_a_ct_there_ends_the_search(cbct):
    reg = instance("r.1", modality="REG", series="s.r", references=refs("FRAME", "f.b", "f.c"))
    want = of(SYNTHETIC, cbct, reg)
    assert (want.frames, want.registrations) == ({"f.b", "f.c"}, False)

    assert not of(SYNTHETIC, cbct, reg, instance("c.1", series="s.c", frame="f.c"))


def test_a_ct_in_another_frame_does_not_end_the_search(cbct):
    assert of(SYNTHETIC, cbct, instance("c.1", series="s.c", frame="f.x"))


def test_a_cone_beam_ct_without_a_frame_wants_nothing(cbct):
    bare = replace(cbct, header=replace(cbct.header, frame_of_reference_uid=None))

    assert not of(SYNTHETIC, bare)
