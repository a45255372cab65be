"""The receiver sets process-wide options of the libraries; other tests get the old ones back."""

import logging

import pydicom.config
import pytest
from pynetdicom import _config


@pytest.fixture(autouse=True)
def _library_options():
    mode = pydicom.config.settings.reading_validation_mode
    level = logging.getLogger("pynetdicom").level
    names = ("LOG_HANDLER_LEVEL", "LOG_REQUEST_IDENTIFIERS", "LOG_RESPONSE_IDENTIFIERS")
    options = {name: getattr(_config, name) for name in names}
    validators = dict(_config.VALIDATORS)
    yield
    pydicom.config.settings.reading_validation_mode = mode
    logging.getLogger("pynetdicom").setLevel(level)
    for name, value in options.items():
        setattr(_config, name, value)
    _config.VALIDATORS.update(validators)
