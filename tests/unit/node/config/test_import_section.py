"""What a destination can import: the setting `profile`, and what makes no sense in it."""

import pytest

from node.config.load import load
from node.errors import ConfigError
from pipelines.dicom.import_profiles import Action

HEAD = """
node: {{ae_titles: ["RTNODE"], data_dir: "data", tls: {{certificate: a, key: b, authorities: c}}}}
peers:
  tps: {{ae_title: "TPS", host: "tps", port: 104, {more}}}
folders: {{shelf: {{path: "shelf", {shelf}}}}}
"""


def loaded(folder, more: str, shelf: str = ""):
    path = folder / "config.yaml"
    path.write_text(HEAD.format(more=more, shelf=shelf))
    return load(path)


def test_a_profile_is_read_with_the_words_and_limits_of_the_site(tmp_path):
    config = loaded(
        tmp_path,
        "profile: {system: eclipse, rules: {holes: warn}, limits: {contour-points: 4000}}",
        "profile: {system: generic}",
    )

    profiles = config.import_profiles()
    rules = profiles["tps"].resolved().rules
    assert profiles.keys() == {"tps", "shelf"}
    assert (rules["holes"].action, rules["contour-points"].limit) == (Action.WARN, 4000)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("{system: eclips}", "eclipse"),
        ("{system: eclipse, rules: {hole: warn}}", "'hole' is no rule"),
        ("{system: eclipse, rules: {holes: fix}}", "'holes' cannot be fixed"),
        ("{system: eclipse, limits: {holes: 2}}", "'holes' has no limit"),
    ],
)
def test_a_profile_that_makes_no_sense_is_told_with_its_place(tmp_path, profile, words):
    with pytest.raises(ConfigError, match=words) as refused:
        loaded(tmp_path, f"profile: {profile}")

    assert "peers.tps.profile" in str(refused.value)


def test_a_fallback_that_can_import_other_things_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="another profile"):
        loaded(tmp_path, 'fallback: "shelf"', "profile: {system: monaco}")

    same = "profile: {system: monaco}"
    assert loaded(tmp_path, f'fallback: "shelf", {same}', same)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('tls_identity: ["CN=tps"]', "tls_identity needs tls: true"),
        ('tls: true, tls_identity: ["sha256:12"]', "64 hexadecimal digits"),
        ('tls: true, tls_identity: ["tps.example.org"]', "write sha256:"),
    ],
)
def test_an_identity_that_says_nothing_is_refused(tmp_path, setting, words):
    with pytest.raises(ConfigError, match=words):
        loaded(tmp_path, setting)


def test_an_identity_has_one_spelling(tmp_path):
    digits = ":".join(["AB"] * 32)
    config = loaded(tmp_path, f'tls: true, tls_identity: ["sha256:{digits}", "DNS:Tps.Example"]')

    assert config.peers["tps"].tls_identity == (f"sha256:{'ab' * 32}", "DNS:tps.example")
