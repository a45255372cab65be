"""What pipelines there are: names, versions, roles and settings; light, no image library.

The node routes, freezes inputs and checks the configuration with this table alone. The code
behind a name is found by `pipelines.registry`, which only the child process imports.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pipelines.api import PipelineSpec, Role
from pipelines.autocontour.settings import AutocontourSettings
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.image_quality.settings import ImageQualitySettings
from pipelines.image_radiomics.settings import ImageRadiomicsSettings
from pipelines.synthetic_ct.settings import SyntheticCTSettings

PIPELINES: Final[Mapping[str, PipelineSpec]] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            PipelineSpec(
                name="autocontour",
                version="0.1.0",
                trigger=Role.CT,
                required=(),
                optional=(Role.RTSTRUCT,),
                settings=AutocontourSettings,
            ),
            PipelineSpec(
                name="synthetic_ct",
                version="0.1.0",
                trigger=Role.CBCT,
                required=(),
                optional=(Role.PLANNING_CT, Role.REG, Role.RTSTRUCT),
                settings=SyntheticCTSettings,
            ),
            PipelineSpec(
                name="dose_radiomics",
                version="0.1.0",
                trigger=Role.RTDOSE,
                required=(Role.RTSTRUCT,),
                optional=(Role.RTPLAN, Role.CT),
                settings=DoseRadiomicsSettings,
            ),
            PipelineSpec(
                name="image_radiomics",
                version="0.1.0",
                trigger=Role.RTSTRUCT,
                required=(Role.IMAGE,),
                optional=(),
                settings=ImageRadiomicsSettings,
            ),
            PipelineSpec(
                name="image_quality",
                version="0.1.0",
                trigger=Role.CT,
                also=(Role.CBCT,),
                required=(),
                optional=(),
                settings=ImageQualitySettings,
            ),
        )
    }
)
"""Pipeline name -> what the node must know of it."""
