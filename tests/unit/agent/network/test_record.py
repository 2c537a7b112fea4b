import pytest

from agent.network.record import Attached, Record, Records, Wish
from shoal.errors import InvalidArgument
from shoal.model.network import Backend, Endpoint, Port

RECORD = Record(
    "ab12",
    "web",
    (Attached("net1", "app", "172.18.0.2", ("web", "www")),),
    (Port(target=80, published=8080),),
    "172.18.0.2",
)


def test_records_come_back_as_they_were(tmp_path):
    files = Records(tmp_path)
    assert files.load() == []
    files.save(RECORD)
    assert files.load() == [RECORD]
    files.remove("ab12")
    files.remove("ab12")
    assert files.load() == []


def test_a_file_that_is_none_of_ours_is_removed(tmp_path):
    files = Records(tmp_path)
    files.save(RECORD)
    (tmp_path / "containers" / "broken.json").write_text("{")
    assert files.load() == [RECORD]
    assert not (tmp_path / "containers" / "broken.json").exists()


def test_an_id_cannot_lead_out_of_the_folder(tmp_path):
    with pytest.raises(InvalidArgument):
        Records(tmp_path).save(Record("../../etc/x"))


def test_the_wish_comes_back(tmp_path):
    files = Records(tmp_path)
    assert files.load_wish() == Wish()
    wish = Wish(endpoints=(Endpoint(service_id="s", backends=(Backend(task_id="t", address="10.0.0.1"),)),))
    files.save_wish(wish)
    assert files.load_wish() == wish
    (tmp_path / "wish.json").write_text("[]")
    assert files.load_wish() == Wish()
