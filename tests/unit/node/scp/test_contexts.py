"""The tables of what is accepted."""

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless, UID_dictionary

from node.scp.contexts import STORAGE_CLASSES, STORAGE_SYNTAXES, VERIFICATION_SYNTAXES


def test_names_and_uids_are_those_of_the_standard():
    for uid, name in STORAGE_CLASSES.items():
        assert UID_dictionary[uid][1] == "SOP Class"
        assert UID_dictionary[uid][0] == name
    for uid in STORAGE_SYNTAXES:
        assert UID_dictionary[uid][1] == "Transfer Syntax"


def test_uncompressed_syntaxes_come_first_and_lossless_before_lossy():
    syntaxes = [UID(uid) for uid in STORAGE_SYNTAXES]
    compressed = [uid.is_compressed or uid.is_deflated for uid in syntaxes]

    assert syntaxes[0] == "1.2.840.10008.1.2.1"
    assert syntaxes[1] == "1.2.840.10008.1.2"
    assert compressed == sorted(compressed)
    lossy = {"81", "91", "50", "51", "203"}
    is_lossy = [uid.rsplit(".", 1)[1] in lossy for uid in syntaxes]
    assert is_lossy == sorted(is_lossy)


def test_deflated_is_taken_only_where_nothing_else_without_loss_is_offered():
    syntaxes = list(STORAGE_SYNTAXES)

    assert syntaxes[syntaxes.index(DeflatedExplicitVRLittleEndian) - 1] == RLELossless


def test_video_is_absent():
    assert not any("MPEG" in UID(uid).name or "HEVC" in UID(uid).name for uid in STORAGE_SYNTAXES)


def test_all_contexts_of_verification_are_uncompressed():
    assert not any(UID(uid).is_compressed for uid in VERIFICATION_SYNTAXES)
