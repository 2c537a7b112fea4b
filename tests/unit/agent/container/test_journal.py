import pytest

from agent.container.journal import check_options, fields
from shoal.errors import InvalidArgument
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerSpec, LogConfig

ID = "0123456789ab" + "c" * 52


def container(**options):
    spec = ContainerSpec(image="busybox", labels={"com.x": "y", "b": "z"}, log=LogConfig("journald", options))
    return Container(meta=Meta(id=ID), name="web", spec=spec, env=("LEVEL=debug", "OTHER=1"))


def test_an_entry_says_whose_it_is_in_dockers_words():
    assert fields(container()) == {
        "CONTAINER_ID": ID[:12],
        "CONTAINER_ID_FULL": ID,
        "CONTAINER_NAME": "web",
        "CONTAINER_TAG": ID[:12],
        "IMAGE_NAME": "busybox",
        "SYSLOG_IDENTIFIER": ID[:12],
    }


def test_labels_and_variables_that_were_asked_for_are_fields_of_their_own():
    found = fields(container(labels="com.x,nosuch", env="LEVEL"))
    assert (found["COM_X"], found["LEVEL"]) == ("y", "debug")
    assert not {"B", "OTHER", "NOSUCH"} & set(found)


def test_a_label_takes_no_field_of_the_containers_own():
    spec = ContainerSpec(labels={"container_name": "another"}, log=LogConfig("journald", {"labels": "container_name"}))
    assert fields(Container(meta=Meta(id=ID), name="web", spec=spec))["CONTAINER_NAME"] == "web"


def test_a_tag_is_a_template():
    assert fields(container(tag="{{.ImageName}}/{{ .Name }}"))["CONTAINER_TAG"] == "busybox/web"
    for tag in ("{{.Nope}}", "{{json .}}"):
        with pytest.raises(InvalidArgument, match="log opt tag"):
            check_options(LogConfig("journald", {"tag": tag}))
    with pytest.raises(InvalidArgument, match="unknown log opt 'max-size'"):
        check_options(LogConfig("journald", {"max-size": "1m"}))
