"""Structure templates: what is written, in which order, under which names, colors and types.

An entry is a structure that the pipeline finds, or an expression over those (`SpinalCanal + 5mm`,
`Lungs - Bones`), see `pipelines.geometry.expressions`. Light on purpose: the node checks
configurations with this module, before any image library is loaded.
"""

from collections.abc import Sequence
from typing import Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.geometry.expressions import ExpressionError, Node, names, parse, uses_dose

ClassicalName = Literal[
    "External", "Lung_L", "Lung_R", "Lungs", "Bones", "SpinalCanal", "Air"
]  # fmt: skip
"""Found without a model."""
LearnedName = Literal[
    "Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Bone_Mandible", "Larynx", "Esophagus",
    "Brain", "Eye_L", "Eye_R", "Lens_L", "Lens_R", "OpticNrv_L", "OpticNrv_R", "OpticChiasm",
    "Pituitary", "Hippocampus_L", "Hippocampus_R", "Glnd_Lacrimal_L", "Glnd_Lacrimal_R",
    "Glnd_Submand_L", "Glnd_Submand_R", "Glnd_Thyroid", "Cavity_Oral", "Pharynx", "Cochlea_L",
    "Cochlea_R", "BrachialPlex_L", "BrachialPlex_R", "Trachea", "Heart", "A_Aorta", "A_Pulmonary",
    "V_Venacava_S", "V_Venacava_I", "Liver", "Gallbladder", "Spleen", "Pancreas", "Stomach",
    "Duodenum", "Bowel_Small", "Colon", "Kidney_L", "Kidney_R", "Adrenal_L", "Adrenal_R",
    "Bladder", "Rectum", "Prostate", "SeminalVes", "Uterus", "Femur_Head_L", "Femur_Head_R",
    "Femur_L", "Femur_R", "Sacrum", "Humerus_L", "Humerus_R", "Clavicle_L", "Clavicle_R",
    "Scapula_L", "Scapula_R", "Sternum", "Breast_L", "Breast_R",
]  # fmt: skip
"""Found by a model pack only: the node's own, or one that was imported."""
InterpretedType = Literal[
    "EXTERNAL", "PTV", "CTV", "GTV", "ITV", "TREATED_VOLUME", "IRRAD_VOLUME", "BOLUS", "AVOIDANCE",
    "ORGAN", "MARKER", "CONTRAST_AGENT", "CAVITY", "SUPPORT", "FIXATION", "DOSE_REGION", "CONTROL",
]  # fmt: skip
"""RT ROI Interpreted Type, the defined terms that a drawn volume can have (PS3.3 C.8.8.8.1)."""

NAME_LENGTH: Final = 16
"""Characters of a structure's name (TG-263)."""
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9 _.+^~-]*$"
"""What every planning system takes; TG-263 itself uses letters, digits, _ ^ ~ - and +."""


class TemplateEntry(BaseModel):
    """One structure to be written."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    structure: ClassicalName | LearnedName | None = Field(
        default=None, description="what is found in the image; give this or an expression"
    )
    expression: str | None = Field(
        default=None,
        max_length=400,
        description="made from structures and from entries above: | union, - subtraction, & "
        "intersection, not, + 5mm and - 3mm margins",
        examples=["(SpinalCanal + 5mm) - Lungs"],
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=NAME_LENGTH,
        pattern=_NAME,
        description="ROI name, by default that of the structure; 15 characters for a structure, "
        "because one that the image cuts off gets a ~",
        examples=["SpinalCanal_PRV5"],
    )
    type: InterpretedType | None = Field(
        default=None,
        description="RT ROI Interpreted Type; by default that of the structure, else CONTROL",
    )
    color: str | None = Field(
        default=None,
        pattern=r"^#[0-9a-fA-F]{6}$",
        description="by default that of the structure, else the next of eight",
        examples=["#ffcc00"],
    )
    largest: bool = Field(default=False, description="only the largest connected part")
    display_name: str = Field(
        default="",
        max_length=NAME_LENGTH,
        pattern=r"^[^\\\x00-\x1f\x7f]*$",
        description="in any script; written as ROI Observation Label",
        examples=["脊柱管"],
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.structure is None) == (self.expression is None):
            raise ValueError("give either a structure or an expression")
        if self.expression is not None and self.name is None:
            raise ValueError(f"'{self.expression}' needs a name")
        if self.structure is not None and len(self.roi_name) == NAME_LENGTH:
            raise ValueError(
                f"name '{self.name}': a structure has at most 15 characters, one is kept for the ~ "
                "of an organ that the image cuts off"
            )
        if self.expression is not None:
            _refuse(self.expression)
        return self

    @property
    def roi_name(self) -> str:
        """The name that is written, unless the image cuts the organ."""
        return self.name or self.structure or ""

    @property
    def node(self) -> Node | None:
        """The tree of the expression."""
        return None if self.expression is None else parse(self.expression)

    @property
    def operands(self) -> tuple[str, ...]:
        """What must be found first."""
        if self.node is None:
            return (self.structure or "",)
        return tuple(dict.fromkeys(n.text for n in names(self.node)))


def check_template(entries: Sequence[TemplateEntry], *, pack: bool) -> None:
    """Check entries against each other.

    Parameters
    ----------
    entries
        In their order; an expression may use the names above it.
    pack
        Whether a model pack finds learned structures.

    Raises
    ------
    ValueError
        With the first fault, in words.
    """
    known = {n.casefold() for n in get_args(ClassicalName)}
    learned = {n.casefold() for n in get_args(LearnedName)}
    above: set[str] = set()
    for entry in entries:
        name = entry.roi_name
        if name.casefold() in above:
            raise ValueError(f"the name '{name}' is given twice (case does not tell names apart)")
        for operand in entry.operands:
            folded = operand.casefold()
            if folded in above and entry.node is not None:
                continue
            if folded in learned and not pack:
                raise ValueError(f"'{operand}' needs a model_pack that finds it")
            if folded not in known | learned:
                raise ValueError(
                    f"'{operand}' is neither a structure nor the name of an entry above"
                )
        above.add(name.casefold())


def structures_of(entries: Sequence[TemplateEntry]) -> frozenset[str]:
    """Return the structures that must be found for `entries`."""
    known = {n.casefold(): n for n in (*get_args(ClassicalName), *get_args(LearnedName))}
    operands = (operand.casefold() for entry in entries for operand in entry.operands)
    return frozenset(known[o] for o in operands if o in known)


def _refuse(expression: str) -> None:
    """Refuse what has no meaning without a dose and a list of ROIs."""
    try:
        node = parse(expression)
    except ExpressionError as error:
        raise ValueError(str(error)) from error
    if uses_dose(node):
        raise ValueError(f"'{expression}': there is no dose here, so no dose band")
    if any(name.pattern for name in names(node)):
        raise ValueError(f"'{expression}': name structures, not patterns")
