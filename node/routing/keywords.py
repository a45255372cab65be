"""DICOM keywords that the routing rules read, besides those that every header holds."""

from typing import Final

SELECTION_KEYWORDS: Final = frozenset({"ContentDate", "ContentTime"})
"""Give them to `node.store.open_store`; of two registrations the newer one is taken."""
