"""The names of pynetdicom that the receiver hooks into: a new version must still have them."""

import inspect

from pynetdicom import AE, _config, evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationServer, AssociationSocket, ThreadedAssociationServer


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_reading_half_of_a_socket_can_be_replaced():
    assert parameters(AssociationSocket.recv) == ["self", "nr_bytes"]
    source = inspect.getsource(DULServiceProvider._read_pdu_data)
    assert "self.socket.recv(6)" in source
    assert "self.socket.recv(pdu_length)" in source


def test_messages_are_fetched_where_we_stand_before_them():
    assert parameters(DIMSEServiceProvider.get_msg) == ["self", "block"]
    assert "self.dimse.get_msg(block=False)" in inspect.getsource(Association._run_reactor)


def test_an_association_can_be_rejected_when_it_is_requested():
    assert parameters(ACSE.send_reject) == ["self", "result", "source", "diagnostic"]
    assert "not self.is_rejected" in inspect.getsource(Association.run_reactor)
    assert parameters(Association.abort) == ["self", "block"]


def test_a_server_class_of_our_own_gets_our_arguments():
    assert "server_class" in parameters(AE.make_server)
    assert "kwargs" in parameters(AE.make_server)
    for hook in ("verify_request", "service_actions", "handle_error"):
        assert hasattr(ThreadedAssociationServer, hook)
    assert AssociationServer.request_queue_size == 5


def test_the_options_that_are_set_exist():
    for name in (
        "LOG_HANDLER_LEVEL",
        "LOG_REQUEST_IDENTIFIERS",
        "LOG_RESPONSE_IDENTIFIERS",
    ):
        assert hasattr(_config, name)
    assert "UI" in _config.VALIDATORS


def test_the_events_that_end_an_association_exist():
    for event in (evt.EVT_RELEASED, evt.EVT_ABORTED, evt.EVT_CONN_CLOSE, evt.EVT_CONN_OPEN):
        assert not event.is_intervention


def test_the_threads_of_an_association_can_be_made_to_wait():
    """`node.scp.waiting`: asked first in each loop, answered by the one way to send."""
    loop = inspect.getsource(DULServiceProvider.run_reactor)
    assert loop.index("self._process_recv_primitive()") < loop.index("self._is_transport_event()")
    assert "self.to_provider_queue.put(primitive)" in inspect.getsource(DULServiceProvider.send_pdu)
    assert "self.event_queue" in loop
    assert '== "Sta13"' in inspect.getsource(DULServiceProvider._is_transport_event)
    assert "self.msg_queue" in inspect.getsource(DIMSEServiceProvider.get_msg)


def test_the_accepted_contexts_are_known_before_the_acceptance_is_sent():
    source = inspect.getsource(ACSE._negotiate_as_acceptor)
    assert source.index("self.assoc._accepted_cx = {") < source.index("self.send_accept()")
    assert "evt.EVT_ACSE_SENT" in inspect.getsource(DULServiceProvider.send_pdu)
