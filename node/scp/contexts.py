"""What the node accepts: SOP classes and transfer syntaxes, as tables and nothing else.

An explicit list, not "all storage": every class here is one that the node can index and explain.
CONFORMANCE.md is printed from these tables, and a test compares them with what the receiver
really negotiates (PS3.2, PS3.4 B.5, PS3.5 chapter 10).
"""

from collections.abc import Mapping
from typing import Final

from node.domain import Uid

VERIFICATION: Final = Uid("1.2.840.10008.1.1")
"""C-ECHO; answered always, also while the disk is full."""

IMPLICIT_VR_LITTLE_ENDIAN: Final = Uid("1.2.840.10008.1.2")
EXPLICIT_VR_LITTLE_ENDIAN: Final = Uid("1.2.840.10008.1.2.1")

STORAGE_CLASSES: Final[Mapping[Uid, str]] = {
    # images
    Uid("1.2.840.10008.5.1.4.1.1.2"): "CT Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.2.1"): "Enhanced CT Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.2.2"): "Legacy Converted Enhanced CT Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.4"): "MR Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.4.1"): "Enhanced MR Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.4.4"): "Legacy Converted Enhanced MR Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.128"): "Positron Emission Tomography Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.128.1"): "Legacy Converted Enhanced PET Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.130"): "Enhanced PET Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.1"): "Computed Radiography Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.1.1"): "Digital X-Ray Image Storage - For Presentation",
    Uid("1.2.840.10008.5.1.4.1.1.1.1.1"): "Digital X-Ray Image Storage - For Processing",
    Uid("1.2.840.10008.5.1.4.1.1.7"): "Secondary Capture Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.7.1"): "Multi-frame Single Bit Secondary Capture Image Storage",
    Uid(
        "1.2.840.10008.5.1.4.1.1.7.2"
    ): "Multi-frame Grayscale Byte Secondary Capture Image Storage",
    Uid(
        "1.2.840.10008.5.1.4.1.1.7.3"
    ): "Multi-frame Grayscale Word Secondary Capture Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.7.4"): "Multi-frame True Color Secondary Capture Image Storage",
    # radiotherapy
    Uid("1.2.840.10008.5.1.4.1.1.481.1"): "RT Image Storage",
    Uid("1.2.840.10008.5.1.4.1.1.481.2"): "RT Dose Storage",
    Uid("1.2.840.10008.5.1.4.1.1.481.3"): "RT Structure Set Storage",
    Uid("1.2.840.10008.5.1.4.1.1.481.4"): "RT Beams Treatment Record Storage",
    Uid("1.2.840.10008.5.1.4.1.1.481.5"): "RT Plan Storage",
    Uid("1.2.840.10008.5.1.4.1.1.481.6"): "RT Brachy Treatment Record Storage",
    Uid("1.2.840.10008.5.1.4.1.1.481.7"): "RT Treatment Summary Record Storage",
    Uid("1.2.840.10008.5.1.4.1.1.481.8"): "RT Ion Plan Storage",
    Uid("1.2.840.10008.5.1.4.1.1.481.9"): "RT Ion Beams Treatment Record Storage",
    # registration, segmentation, quantities
    Uid("1.2.840.10008.5.1.4.1.1.66.1"): "Spatial Registration Storage",
    Uid("1.2.840.10008.5.1.4.1.1.66.2"): "Spatial Fiducials Storage",
    Uid("1.2.840.10008.5.1.4.1.1.66.3"): "Deformable Spatial Registration Storage",
    Uid("1.2.840.10008.5.1.4.1.1.66.4"): "Segmentation Storage",
    Uid("1.2.840.10008.5.1.4.1.1.30"): "Parametric Map Storage",
    Uid("1.2.840.10008.5.1.4.1.1.67"): "Real World Value Mapping Storage",
    # documents
    Uid("1.2.840.10008.5.1.4.1.1.88.11"): "Basic Text SR Storage",
    Uid("1.2.840.10008.5.1.4.1.1.88.22"): "Enhanced SR Storage",
    Uid("1.2.840.10008.5.1.4.1.1.88.33"): "Comprehensive SR Storage",
    Uid("1.2.840.10008.5.1.4.1.1.88.34"): "Comprehensive 3D SR Storage",
    Uid("1.2.840.10008.5.1.4.1.1.88.35"): "Extensible SR Storage",
    Uid("1.2.840.10008.5.1.4.1.1.88.59"): "Key Object Selection Document Storage",
    Uid("1.2.840.10008.5.1.4.1.1.88.67"): "X-Ray Radiation Dose SR Storage",
    Uid("1.2.840.10008.5.1.4.1.1.11.1"): "Grayscale Softcopy Presentation State Storage",
    Uid("1.2.840.10008.5.1.4.1.1.104.1"): "Encapsulated PDF Storage",
}
"""SOP Class UID -> name: what is stored. Anything else is refused at negotiation."""

STORAGE_SYNTAXES: Final[Mapping[Uid, str]] = {
    EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    Uid("1.2.840.10008.1.2.2"): "Explicit VR Big Endian (retired)",
    Uid("1.2.840.10008.1.2.4.70"): "JPEG Lossless, Non-Hierarchical, First-Order Prediction",
    Uid("1.2.840.10008.1.2.4.57"): "JPEG Lossless, Non-Hierarchical",
    Uid("1.2.840.10008.1.2.4.80"): "JPEG-LS Lossless",
    Uid("1.2.840.10008.1.2.4.90"): "JPEG 2000 Lossless",
    Uid("1.2.840.10008.1.2.4.201"): "High-Throughput JPEG 2000 Lossless",
    Uid("1.2.840.10008.1.2.4.202"): "High-Throughput JPEG 2000 Lossless with RPCL Options",
    Uid("1.2.840.10008.1.2.5"): "RLE Lossless",
    Uid("1.2.840.10008.1.2.1.99"): "Deflated Explicit VR Little Endian",
    Uid("1.2.840.10008.1.2.4.81"): "JPEG-LS Near-Lossless",
    Uid("1.2.840.10008.1.2.4.91"): "JPEG 2000",
    Uid("1.2.840.10008.1.2.4.203"): "High-Throughput JPEG 2000",
    Uid("1.2.840.10008.1.2.4.50"): "JPEG Baseline (Process 1)",
    Uid("1.2.840.10008.1.2.4.51"): "JPEG Extended (Processes 2 and 4)",
}
"""Transfer Syntax UID -> name, in order of preference, for every storage class.

The acceptor picks the first of these that a context offers, so what arrives uncompressed stays
so, and lossless wins over lossy. Deflated is taken where nothing else is offered: it is inflated by
the piece and within limits (`node.store.deflate`). Video is absent: no class above carries it.
"""

VERIFICATION_SYNTAXES: Final[Mapping[Uid, str]] = {
    uid: STORAGE_SYNTAXES[uid]
    for uid in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Uid("1.2.840.10008.1.2.2"))
}
"""A C-ECHO carries no data set; the syntaxes are those that echo tools propose."""
