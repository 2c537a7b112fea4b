"""What the assigner keeps of networks, and until when."""

from __future__ import annotations

from manager.dispatcher.assigner import Assigner
from manager.store.view import View


def test_a_bulletin_that_was_asked_for_once_its_network_was_gone_is_forgotten() -> None:
    assigner = Assigner(View())
    asked = assigner.bulletin("n1")
    assert assigner.settle() == set()
    assert assigner.bulletin("n1") is not asked
