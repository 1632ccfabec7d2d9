from pathlib import Path

import pytest

from logstore.model.errors import UsageError
from logstore.settings import Address, Settings, load


def write(folder: Path, text: str) -> Path:
    (folder / "logstore.toml").write_text(text)
    return folder


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path):
    folders = (write(tmp_path, 'workers = 2\nreaders = 3\nzone = "file"\ngroup = "file"'),)
    environ = {"LOGSTORE_READERS": "4", "LOGSTORE_ZONE": "environment"}

    found = load({"zone": "flag", "readers": None}, environ, folders)

    assert (found.workers, found.readers, found.zone, found.group) == (2, 4, "flag", "file")
    assert found.slots == 16


def test_the_first_folder_with_a_file_counts_and_the_environment_can_name_another(tmp_path):
    near, far, named = tmp_path / "near", tmp_path / "far", tmp_path / "named.toml"
    near.mkdir(), far.mkdir(), named.write_text('zone = "named"')
    write(far, 'zone = "far"')
    assert load({}, {}, (near, far)).zone == "far"
    write(near, 'zone = "near"')
    assert load({}, {}, (near, far)).zone == "near"
    assert load({}, {"LOGSTORE_CONFIG": str(named)}, (near, far)).zone == "named"


def test_a_config_file_that_is_named_and_missing_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"no such file"):
        load({}, {"LOGSTORE_CONFIG": str(tmp_path / "nowhere.toml")}, ())


def test_an_unknown_key_in_the_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"logstore.toml: there is no setting 'wrokers'; .*workers"):
        load({}, {}, (write(tmp_path, "wrokers = 2"),))


def test_a_torn_file_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*logstore.toml"):
        load({}, {}, (write(tmp_path, "workers = "),))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("WORKERS", "two", "whole number from 1"),
        ("WORKERS", "0", "whole number from 1"),
        ("WORKERS", "-1", "whole number from 1"),
        ("READERS", "99999", "to 64"),
        ("HTTP", "8480", "HOST:PORT"),
        ("HTTP", "localhost:99999", "HOST:PORT"),
        ("URL", "localhost:8480", "http://HOST:PORT"),
        ("BOOTSTRAP", "localhost", "HOST:PORT"),
        ("SYNC", "sometimes", '"none" or "commit"'),
        ("INSECURE", "maybe", "true or false"),
        ("STALL_S", "0", "seconds above 0"),
        ("STALL_S", "soon", "could not convert"),
        ("DEADLINE_MS", "30001", "30,000"),
    ],
)
def test_a_value_that_cannot_be_is_an_error_that_names_its_place(name, text, says):
    with pytest.raises(UsageError) as raised:
        load({}, {f"LOGSTORE_{name}": text}, ())
    assert str(raised.value).startswith(f"LOGSTORE_{name}: ")
    assert says in str(raised.value)


def test_a_number_in_the_file_must_be_one(tmp_path):
    with pytest.raises(UsageError, match=r"workers: wants a whole number"):
        load({}, {}, (write(tmp_path, "workers = true"),))


def test_every_setting_can_stand_in_the_environment(tmp_path):
    environ = {
        "LOGSTORE_BOOTSTRAP": "a:1,b:2", "LOGSTORE_URL": "http://h:1/", "LOGSTORE_DATA_DIR": str(tmp_path),
        "LOGSTORE_HTTP": "[::1]:0",
        "LOGSTORE_ADVERTISE": "https://h", "LOGSTORE_WORKERS": "3", "LOGSTORE_READERS": "5", "LOGSTORE_SYNC": "commit",
        "LOGSTORE_GROUP": "g", "LOGSTORE_ZONE": "z", "LOGSTORE_INSECURE": "yes",
        "LOGSTORE_WRITES": "1", "LOGSTORE_SLOTS": "8",
        "LOGSTORE_STORAGE": "s3://b/p", "LOGSTORE_STORAGE_SCHEMES": "file,s3",
            "LOGSTORE_KAFKA_PORT": "9", "LOGSTORE_KAFKA_CONFIG": "/k", "LOGSTORE_SECURE": "1",
        "LOGSTORE_KAFKA_HEAP_MB": "256", "LOGSTORE_STALL_S": "1.5", "LOGSTORE_DRAIN_S": "2",
        "LOGSTORE_DEADLINE_MS": "100",
        "LOGSTORE_TIMEOUT_S": "3", "LOGSTORE_FETCH_MB_S": "20", "LOGSTORE_LOCAL_RECORDS": "9", "LOGSTORE_LOCAL_MB": "3",
        "LOGSTORE_TASK_BYTES": "5",
        "LOGSTORE_LOG_FORMAT": "json",
        "LOGSTORE_LOG_LEVEL": "info,streaming.lane=debug", "LOGSTORE_SLOW_MS": "7", "LOGSTORE_ACCESS_LOG": "yes",
    }  # fmt: skip
    assert load({}, environ, ()) == Settings(
        bootstrap="a:1,b:2", url="http://h:1", data_dir=tmp_path, http=Address("::1", 0), advertise="https://h",
        workers=3, readers=5,
        sync="commit", group="g", zone="z", insecure=True, writes=True, slots=8, storage="s3://b/p",
        storage_schemes=("file", "s3"), kafka_port=9, kafka_heap_mb=256, kafka_config=Path("/k"), secure=True,
        stall_s=1.5,
        drain_s=2.0, deadline_ms=100, timeout_s=3.0, fetch_mb_s=20.0, local_records=9, local_mb=3, task_bytes=5,
        log_format="json",
        log_level="info,streaming.lane=debug", slow_ms=7, access_log=True,
    )  # fmt: skip
    assert {name.removeprefix("LOGSTORE_").lower() for name in environ} == set(Settings.__dataclass_fields__)


def test_an_empty_variable_is_not_set():
    assert load({}, {"LOGSTORE_BOOTSTRAP": ""}, ()).bootstrap is None


def test_an_ipv6_address_has_brackets_in_its_url():
    assert Address("::1", 80).url == "http://[::1]:80"
