"""What earlier versions have left in Redis and on disk is read by this one, and nothing of it lost.

The folders in tests/fixtures, one for each version, hold what that version really wrote; their
README says what and how. A later version adds a folder, and every test here runs for it as well.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from optly_celery import dispatch, flush, stats
from optly_celery.testing.server import Received

from ..commands import invoke
from ..conftest import celery_app
from ..fixtures.elsewhere import Optimizely, found_at, has_openssl
from ..fixtures.keys import load
from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line
from ..support import US_URL, eventually, params_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
VERSIONS = sorted(path.name for path in FIXTURES.iterdir() if (path / "outbox.json").exists())
PLACES = [
    pytest.param(version, entry, id=f"{version}-{number}")
    for version in VERSIONS
    for number, entry in enumerate(
        json.loads((FIXTURES / version / "directories.json").read_text())
    )
]
Scene = dict[str, Any]


class Written:
    """What one version has written."""

    def __init__(self, version: str) -> None:
        self.directory = FIXTURES / version

    def scenes(self, name: str) -> dict[str, Scene]:
        """The scenes of one file, by name."""
        found: dict[str, Scene] = json.loads((self.directory / f"{name}.json").read_text())
        return found

    def tree(self, scene: str) -> Path:
        """The folder that stands for a user's state directory."""
        return self.directory / "outbox" / scene


@pytest.fixture(params=VERSIONS)
def written(request: pytest.FixtureRequest) -> Written:
    return Written(request.param)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """One whose worker looks at once for what dead workers have left."""
    with Line(tmp_path / "line", config=IMPATIENT, **IMPATIENT_SETTINGS) as made:
        yield made


@pytest.mark.parametrize("kind", ["direct", "outbox", "foreign"])
def test_messages_in_the_queue_are_delivered(written: Written, line: Line, kind: str) -> None:
    """Published by the dispatcher, by a relay, or by a program that knows the wire format only."""
    events = _put(line, written.scenes(f"messages/{kind}"))

    line.work("-c", "4")

    _all_arrive(line, events)
    assert not list(line.dead.list())


def test_retries_that_waited_in_a_worker_are_delivered(written: Written, line: Line) -> None:
    """The worker that held them is gone; their time has passed, and their number is kept."""
    scenes = written.scenes("messages/retry")
    events = _put(line, scenes)
    before = line.dead.ids()

    with line.watch:
        line.work("-c", "4")
        _all_arrive(line, events)
        refused = [note for note in _notes(scenes) if note["headers"]["optly_refused"]]
        assert refused
        for note in refused:
            line.ends(note["headers"]["id"], "FAILURE")
            end = line.watch.last(note["headers"]["id"], "task-failed")
            assert "1 kept as dead letter by earlier attempts" in end["exception"]

    received = [e for e in line.watch.heard if e["type"] == "task-received"]
    assert {e["retries"] for e in received} == {1}
    assert line.dead.ids() == before


def test_what_dead_workers_held_is_delivered(written: Written, line: Line) -> None:
    """Some was swept back into the queue, and some still lies where the worker had it."""
    events = _put(line, written.scenes("messages/swept"))

    line.work("-c", "4")

    _all_arrive(line, events)
    eventually(lambda: not line.broker.client().keys("*strikes*"), what="no note is left behind")


@pytest.mark.skipif(not has_openssl(), reason="needs the openssl command")
def test_parked_messages_are_delivered(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their endpoint's name, once that is well; it is asked by one of them beforehand."""
    with contextlib.ExitStack() as stack:
        optimizely = stack.enter_context(Optimizely(tmp_path))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(optimizely.certificate))
        settings = IMPATIENT_SETTINGS | {"url_override": None}
        config = optimizely.config + IMPATIENT
        line = stack.enter_context(Line(tmp_path / "line", config=config, **settings))
        events = _put(line, written.scenes("messages/parked"))
        assert line.broker.client().llen("optimizely.parked.logx.optimizely.com")

        line.work("-c", "4")

        _all_arrive(line, events, optimizely.us.received)
        eventually(lambda: not line.broker.client().keys("optimizely.parked.*"))
        assert not optimizely.eu.received


@pytest.mark.parametrize("scene", ["no prefix", "a prefix"])
def test_dead_letters_are_listed_shown_and_replayed(
    written: Written, tmp_path: Path, scene: str
) -> None:
    """Each with all that was known of it; what is no event stays, for a person to look at."""
    kept = written.scenes("letters")[scene]
    options = {"global_keyprefix": kept["prefix"]} if kept["prefix"] else {}
    config = IMPATIENT + f"broker_transport_options |= {options!r}\n"
    with Line(tmp_path / "line", config=config, **IMPATIENT_SETTINGS) as line:
        _put(line, {scene: kept})
        with celery_app(line.broker.url, broker_transport_options=options) as app:

            def run(*arguments: str) -> Any:
                done = invoke("dead-letters", *arguments, "--json", app=app)
                assert done.exit_code in (0, 1), done.output
                return json.loads(done.stdout)

            _has_letters(kept, run)
            facts = json.loads(invoke("status", "--json", app=app).stdout)
            assert facts["dead_letters_expired"] == kept["expired"] == 1

            events = [x["event"] for x in kept["letters"]]
            good = [e for e in events if e["url"] and isinstance(e["params"], dict)]
            done = run("replay", "--all", "--yes")

            assert done["replayed"] == len(good) > 0
            assert done["no_event"] == done["remaining"] == len(events) - len(good)
            assert len(run("list")) == len(events) - len(good)

        line.work("-c", "4")
        _all_arrive(line, [(e["verb"], e["params"]) for e in good], prefix=kept["prefix"])


def test_what_was_no_message_is_a_dead_letter_by_now(written: Written, line: Line) -> None:
    """With all its bytes, beside those that a worker of that version has kept already."""
    (kept,) = written.scenes("unreadable").values()
    client = line.broker.client()
    load(client, kept["keys"])
    raw = client.lrange("optimizely.unreadable", 0, -1)
    with celery_app(line.broker.url) as app:

        def run(*arguments: str) -> Any:
            return json.loads(invoke("dead-letters", *arguments, "--json", app=app).stdout)

        _has_letters(kept, run)

        line.work("-c", "1")
        eventually(lambda: not client.exists("optimizely.unreadable"))

        before = {letter["id"] for letter in kept["letters"]}
        new = [x["id"] for x in run("list") if x["id"] not in before]
        params = [run("show", i, "--show-payload")["event"]["params"] for i in new]
    assert Counter(_message_bytes(**found) for found in params) == Counter(raw)


def _message_bytes(message: str, encoding: str) -> bytes:
    return base64.b64decode(message) if encoding == "base64" else message.encode(encoding)


@pytest.mark.parametrize("scene", ["kill", "exit", "adopt"])
def test_outbox_files_of_dead_processes_are_relayed(
    written: Written, line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scene: str
) -> None:
    """Where they lie, by the next process of the same configuration that dispatches."""
    left = written.scenes("outbox")[scene]
    state = tmp_path / "left"
    shutil.copytree(written.tree(scene), state)
    files = list(state.rglob("*.outbox"))
    assert files
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    with (
        found_at({"localhost": line.broker.port}),
        celery_app(left["broker_url"], optly_delivery="outbox"),
    ):
        dispatch(US_URL, params_of(uuid="u-new"))
        assert flush(10)
        eventually(lambda: not [path for path in files if path.exists()], what="adopted")
        assert stats()["relayed"] == len(left["events"]) + 1

    line.work("-c", "4")

    _all_arrive(line, [*left["events"], ("POST", params_of(uuid="u-new"))])
    assert not [path for path in state.rglob("*") if "damaged" in path.name]


@pytest.mark.parametrize(("version", "entry"), PLACES)
def test_outboxes_are_found_where_they_were_kept(
    version: str, entry: dict[str, Any], own_broker: Any, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Whatever the configuration: the name of their directory follows from it."""
    state, conf = tmp_path / "left", dict(entry["configuration"])
    written = Written(version)
    left = written.scenes("outbox")["exit"]
    (source,) = written.tree("exit").rglob("*.outbox")
    target = state / entry["directory"] / source.name
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    if "optly_outbox_dir" in conf:
        conf["optly_outbox_dir"] = str(state / conf["optly_outbox_dir"])
    own_broker.client().acl_setuser(
        "shop", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"]
    )
    hosts = dict.fromkeys(("localhost", "broker.example", "standby.example"), own_broker.port)
    broker_url = conf.pop("broker_url")
    with found_at(hosts), celery_app(broker_url, **conf) as app:
        done = invoke("outbox", "drain", "--json", app=app)
    said = json.loads(done.stdout)
    first = broker_url if isinstance(broker_url, str) else broker_url[0]
    if not first.startswith("redis://"):
        # There is no such broker here, so it is seen to be found, and it stays.
        assert (done.exit_code, said["done"], target.exists()) == (3, False, True)
        return
    assert (said["events"], said["files"], said["done"]) == (len(left["events"]), 1, True)
    assert not target.exists()
    prefix = conf.get("broker_transport_options", {}).get("global_keyprefix", "")
    database = 2 if broker_url == "redis://broker.example:6379/2" else 0
    client = own_broker.client()
    client.select(database)
    assert client.llen(prefix + conf.get("optly_queue", "optimizely")) == 4, "by contexts"


def test_the_messages_are_of_every_form(written: Written) -> None:
    """Nothing else would tell if a kind had been written that is none."""
    scenes = {
        f"{kind}, {name}": [_form(message) for message in _messages(scene)]
        for kind in ("direct", "outbox", "foreign", "retry", "swept", "parked")
        for name, scene in written.scenes(f"messages/{kind}").items()
    }
    plain = {"optly_enqueued_at"}
    assert scenes["direct, one event"] == [plain]
    assert scenes["direct, params that travel as text"] == [plain | {"text"}]
    assert scenes["outbox, one event"] == [plain]
    assert scenes["outbox, a small batch"] == [plain | {"text"}]
    assert scenes["outbox, a batch"] == [plain | {"text", "compression"}]
    assert scenes["foreign, an object"] == [set()]
    assert scenes["foreign, a text"] == [{"text"}]
    again = plain | {"eta", "retries"}
    assert sorted(scenes["retry, one event and a batch"], key=len) == [again, again | {"text"}]
    assert scenes["retry, the rest of a batch"] == [again | {"optly_refused"}]
    assert (
        plain | {"optly_swept"} in scenes["swept, of two workers that were killed, one was swept"]
    )
    assert len(scenes["parked, one host"]) == 6


def test_every_file_is_read(written: Written) -> None:
    """One that no test reads would prove nothing."""
    read = {"directories", "letters", "outbox", "unreadable"}
    read |= {f"messages/{k}" for k in ("direct", "outbox", "foreign", "retry", "swept", "parked")}
    there = {
        str(path.relative_to(written.directory).with_suffix(""))
        for path in written.directory.rglob("*.json")
    }
    assert there == read
    assert set(written.scenes("outbox")) == {"kill", "exit", "adopt"}
    for scene in written.scenes("outbox"):
        assert list(written.tree(scene).rglob("*.outbox"))


def _put(line: Line, scenes: dict[str, Scene]) -> list[Any]:
    """Put scenes into the broker; the events that they hold."""
    client = line.broker.client()
    for scene in scenes.values():
        load(client, scene["keys"])
    return [event for scene in scenes.values() for event in scene["events"]]


def _messages(scene: Scene) -> list[Any]:
    """The messages of a scene, wherever they lie."""
    keys = scene["keys"]
    lists = [keys[k]["values"] for k in keys if k == "optimizely" or ".parked." in k]
    notes = [note for _, note in keys.get("unacked", {"values": []})["values"]]
    return [json.loads(m) for values in lists for m in values] + [json.loads(n)[0] for n in notes]


def _form(message: Any) -> set[str]:
    """What is special about a message."""
    headers = message["headers"]
    names = ("compression", "eta", "retries", *(h for h in headers if h.startswith("optly_")))
    body = base64.b64decode(message["body"])
    args, _, _ = json.loads(zlib.decompress(body) if headers.get("compression") else body)
    return {name for name in names if headers.get(name)} | (
        {"text"} if isinstance(args[2], str) else set()
    )


def _notes(scenes: dict[str, Scene]) -> list[Any]:
    return [
        json.loads(note)[0]
        for scene in scenes.values()
        for _, note in scene["keys"]["unacked"]["values"]
    ]


def _has_letters(kept: Scene, run: Any) -> None:
    """Whether the commands show the letters as the version that kept them did, or better."""
    listed = run("list")
    assert [x["id"] for x in listed] == [x["id"] for x in kept["letters"]]
    for letter in kept["letters"]:
        shown = run("show", letter["id"], "--show-payload")
        assert letter.items() <= shown.items()


def _all_arrive(
    line: Line, events: Iterable[Any], received: list[Received] | None = None, *, prefix: str = ""
) -> None:
    """Wait until the endpoint has taken each visitor's part once, unchanged, and no other.

    Events may come together or apart, so what is compared is each visitor with its context.
    """
    wanted = Counter(part for verb, params in events for part in _parts(verb, params))
    assert wanted
    requests = line.collector.received if received is None else received
    client = line.broker.client()

    def taken() -> Counter[str]:
        return Counter(part for request in list(requests) for part in _parts(*_sent(request)))

    def is_done() -> bool:
        pipe = client.pipeline()
        held = any(pipe.llen(f"{prefix}optimizely").hlen(f"{prefix}unacked").execute())
        return not held and not wanted - taken()

    eventually(is_done, timeout_s=30, what=lambda: f"missing {wanted - taken()}")
    assert taken() == wanted


def _sent(request: Received) -> tuple[str, Any]:
    if request.method == "GET":
        return "GET", dict(parse_qsl(urlsplit(request.target).query))
    return request.method, json.loads(request.body)


def _parts(verb: str, params: dict[str, Any]) -> Iterator[str]:
    """An event as text, for each of its visitors; in the order in which it has its keys."""
    for visitor in params.get("visitors") or [None]:
        alone = {k: [visitor] if k == "visitors" else v for k, v in params.items()}
        yield f"{verb} {json.dumps(alone)}"
