"""Traces: told of by clients, made of spans, searched, linked, removed with their files."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from uploading import execute, place

from penstock_server.blobs import Store
from penstock_server.core import traces as core_traces
from penstock_server.core.assessments import Assessments
from penstock_server.core.experiments import Experiments
from penstock_server.core.retention import Removal, Retention
from penstock_server.core.traces import Told, Traces
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import InvalidArgument, InvalidFilter, InvalidPageToken, NotActive, NotFound
from penstock_server.model.experiments import DEFAULT_EXPERIMENT as HERE
from penstock_server.model.owners import parse_owner
from penstock_server.model.search import parse_traces
from penstock_server.model.traces import VALUE_LIMIT, Assessment, AssessmentKind, Span, SpanStatus, Trace, TraceState
from penstock_server.postgres import assessments as kept_assessments
from penstock_server.postgres import search_traces
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_conditions import Parameters
from penstock_server.postgres.traces import link_run as linked

CALLER = Caller("tests", WorkspaceId(1))
MS = 1_000_000


@pytest.fixture
def nudges() -> list[None]:
    return []


@pytest.fixture
def traces(db: Database, nudges: list[None]) -> Traces:
    return Traces(db, lambda: nudges.append(None))


def named(number: int) -> str:
    return f"tr-{number:032x}"


def trace(number: int = 1, **fields: Any) -> Trace:
    told = Trace(named(number), HERE, 1_000 + number, 5, TraceState.OK)
    return replace(told, **fields)


def span(number: int = 1, span_id: str = "0000000000000001", **fields: Any) -> Span:
    made = Span(named(number), span_id, None, "root", "CHAIN", SpanStatus.OK, "", 1_000 * MS, 1_010 * MS)
    return replace(made, **fields)


def said(**fields: Any) -> Assessment:
    return replace(Assessment("a-1", AssessmentKind.FEEDBACK, "good", 0.5, "HUMAN", "ann", 1, 1), **fields)


async def found(traces: Traces, filter_text: str, order: tuple[str, ...] = ()) -> list[int]:
    """The numbers of the traces that a search of the default experiment gives."""
    selected, token = await traces.search(CALLER, parse_traces(filter_text, order), [HERE], 100, "")
    assert not token
    return [int(each.trace_id.removeprefix("tr-"), 16) for each in selected]


async def test_a_trace_is_told_of_and_found(traces: Traces) -> None:
    told = trace(tags={"team": "vision"}, metadata={"m": "n"}, request_preview="?", assessments=[said()])
    assert await traces.put(CALLER, told) == told
    assert await traces.get(CALLER, named(1)) == told


async def test_told_again_what_is_told_goes_over_what_was(traces: Traces) -> None:
    first = trace(tags={"a": "1", "b": "1"}, metadata={"m": "1"}, request_preview="first", assessments=[said()])
    await traces.put(CALLER, first)
    again = trace(state=TraceState.ERROR, execution_ms=9, tags={"b": "2"}, assessments=[said(assessment_id="a-2")])
    kept = await traces.put(CALLER, again)
    assert (kept.state, kept.execution_ms, kept.request_preview) == (TraceState.ERROR, 9, "first")
    assert (kept.tags, kept.metadata) == ({"a": "1", "b": "2"}, {"m": "1"})
    assert [each.assessment_id for each in kept.assessments] == ["a-1", "a-2"]


async def test_no_active_experiment_takes_no_traces(traces: Traces, db: Database) -> None:
    with pytest.raises(NotFound):
        await traces.put(CALLER, trace(experiment_id=99))
    experiments = Experiments(db)
    made = await experiments.create(CALLER, "gone")
    await experiments.delete(CALLER, made.id)
    with pytest.raises(NotActive):
        await traces.put(CALLER, trace(experiment_id=made.id))
    with pytest.raises(NotActive):
        await traces.add_spans(CALLER, made.id, [span()], {})


async def test_spans_make_a_trace(traces: Traces) -> None:
    child = span(span_id="2", parent_id="1", start_ns=999 * MS, end_ns=1_000 * MS)
    told = {named(1): Told({"a": "b"}, {"m": "n"}, "in", "out")}
    await traces.add_spans(CALLER, HERE, [child, span(status=SpanStatus.ERROR)], told)
    [(made, steps)] = await traces.get_whole(CALLER, [named(1)])
    assert (made.request_ms, made.execution_ms, made.state, made.told) == (999, 11, TraceState.ERROR, False)
    assert (made.tags, made.metadata) == ({"a": "b"}, {"m": "n"})
    assert (made.request_preview, made.response_preview) == ("in", "out")
    assert [each.span_id for each in steps] == ["0000000000000001", "2"]  # the root first


async def test_more_spans_widen_a_trace_that_follows_from_them(traces: Traces) -> None:
    await traces.add_spans(CALLER, HERE, [span(span_id="2", parent_id="1", start_ns=1_005 * MS)], {})
    assert (await traces.get(CALLER, named(1))).state is TraceState.IN_PROGRESS
    await traces.add_spans(CALLER, HERE, [span(end_ns=1_020 * MS)], {})
    made = await traces.get(CALLER, named(1))
    assert (made.request_ms, made.execution_ms, made.state) == (1_000, 20, TraceState.OK)


async def test_what_a_client_told_stays(traces: Traces) -> None:
    await traces.put(CALLER, trace(request_preview="told", metadata={"m": "told"}))
    await traces.add_spans(CALLER, HERE, [span()], {named(1): Told({}, {"m": "n", "o": "p"}, "in")})
    made = await traces.get(CALLER, named(1))
    assert (made.request_ms, made.execution_ms, made.request_preview) == (1_001, 5, "told")
    assert made.metadata == {"m": "told", "o": "p"}


async def test_a_span_that_comes_again_takes_the_place_of_the_first(traces: Traces) -> None:
    await traces.add_spans(CALLER, HERE, [span(name="first"), span(name="second")], {})
    await traces.add_spans(CALLER, HERE, [span(name="third", attributes={"zeta": 1.0, "a": [None, True, "\0"]})], {})
    [(_, [kept])] = await traces.get_whole(CALLER, [named(1)])
    assert kept.name == "third"
    assert list(kept.attributes.items()) == [("zeta", 1.0), ("a", [None, True, "\ufffd"])]  # in their order


async def test_all_or_nothing(traces: Traces) -> None:
    with pytest.raises(InvalidArgument):
        await traces.add_spans(CALLER, HERE, [span(1), span(2, start_ns=2**63)], {})
    assert await traces.get_many(CALLER, [named(1), named(2)]) == []


async def test_exports_of_the_same_traces_at_once(traces: Traces) -> None:
    exports = [
        [span(number, span_id=f"{export}") for number in (order if export % 2 else order[::-1])]
        for export, order in enumerate([[1, 2, 3, 4]] * 8)
    ]
    await asyncio.gather(*(traces.add_spans(CALLER, HERE, export, {}) for export in exports))
    assert [len(steps) for _, steps in await traces.get_whole(CALLER, [named(n) for n in (1, 2, 3, 4)])] == [8] * 4


async def test_values_that_are_too_long_are_cut_off(traces: Traces) -> None:
    await traces.put(CALLER, trace())
    await traces.set_tag(CALLER, named(1), "a", "x" * (VALUE_LIMIT + 1))
    assert len((await traces.get(CALLER, named(1))).tags["a"]) == VALUE_LIMIT


async def test_what_is_too_much_is_refused(traces: Traces) -> None:
    for tags in ({str(n): "" for n in range(1_001)}, {str(n): "x" * VALUE_LIMIT for n in range(32)}, {"x" * 251: ""}):
        with pytest.raises(InvalidArgument):
            await traces.put(CALLER, trace(tags=tags))


async def test_no_trace_ends_before_it_began(traces: Traces) -> None:
    await traces.put(CALLER, trace(request_ms=1_000))
    for end_ms, took in ((0, 0), (1_250, 250)):
        assert (await traces.end(CALLER, named(1), end_ms, TraceState.OK, {}, {})).execution_ms == took


async def test_tags_have_a_limit_however_often_some_are_added(traces: Traces) -> None:
    async def add(number: int) -> None:
        tags = {f"{number}.{each}": "x" * 8_000 for each in range(30)}
        match number % 3:
            case 0:
                await traces.put(CALLER, trace(tags=tags))
            case 1:
                await traces.end(CALLER, named(1), 2_000, TraceState.OK, {}, tags)
            case _:
                await traces.add_spans(CALLER, HERE, [span()], {named(1): Told(tags, tags)})

    async def add_more(first: int) -> None:
        for number in range(first, first + 9, 3):
            await add(number)

    for number in range(5):
        await add(number)
    for number in (6, 7, 8):
        with pytest.raises(InvalidArgument, match="1 MiB"):
            await add_more(number)


async def test_what_is_said_of_a_trace_has_a_limit(
    traces: Traces, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for much in (said(value="x" * 70_000), said(value=None, error={"stack_trace": "x" * 70_000})):
        with pytest.raises(InvalidArgument, match="the limit"):
            await traces.put(CALLER, trace(assessments=[much]))
    monkeypatch.setattr(kept_assessments, "ASSESSMENTS_LIMIT", 2)
    await traces.put(CALLER, trace(assessments=[said(), said(assessment_id="a-2")]))
    with pytest.raises(InvalidArgument, match="the limit"):
        await traces.put(CALLER, trace(assessments=[said(assessment_id="a-3")]))
    with pytest.raises(InvalidArgument, match="the limit"):
        await Assessments(db).create(CALLER, named(1), said(assessment_id="a-3"))
    assert len((await traces.get(CALLER, named(1))).assessments) == 2


async def test_what_is_read_at_once_is_limited(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_traces, "SPANS_BYTES", 1_000)
    for number in (1, 2):
        await traces.add_spans(CALLER, HERE, [span(number, attributes={"a": "x" * 600})], {})
        assert await traces.get_whole(CALLER, [named(number), named(9)])
    with pytest.raises(InvalidArgument, match="ask for fewer"):
        await traces.get_whole(CALLER, [named(1), named(2)])
    for read in (traces.get_whole, traces.get_many):
        with pytest.raises(InvalidArgument, match="the limit is 500"):
            await read(CALLER, [named(number) for number in range(501)])


async def test_tags_are_set_and_removed(traces: Traces) -> None:
    await traces.put(CALLER, trace())
    await traces.set_tag(CALLER, named(1), "a", "b")
    await traces.delete_tag(CALLER, named(1), "a")
    for missing in (traces.delete_tag(CALLER, named(1), "a"), traces.set_tag(CALLER, named(2), "a", "b")):
        with pytest.raises(NotFound):
            await missing
    assert (await traces.get(CALLER, named(1))).tags == {}


SEARCHES = [
    ("", [3, 2, 1]),
    ("tags.team = 'a'", [1]),
    ("tags.team != 'a'", [2]),
    ("tags.team IS NULL", [3]),
    ("NOT tags.team = 'a'", [3, 2]),
    ("metadata.k LIKE 'v%' OR status = 'ERROR'", [3, 1]),
    ("name RLIKE '^t[12]$'", [2, 1]),
    ("name NOT RLIKE 'x'", [2, 1]),
    ("timestamp > 1001 AND execution_time < 50", [2]),
    ("end_time = 1006", [1]),
    ("request_id IN ('" + named(1) + "', '" + named(3) + "')", [3, 1]),
    ("client_request_id = 'c'", [2]),
    ("run_id = 'r1'", [2, 1]),  # made in it, linked to it
    ("prompt = 'p/1'", [3]),
    ("span.name = 'inner'", [1]),
    ("span.name = 'root' AND span.type = 'LLM'", []),  # of one span
    ("span.name = 'inner' AND span.type = 'LLM' AND tags.team = 'a'", [1]),
    ("span.attributes.model = 'gpt'", [1]),
    ("span.attributes.`a b` = '7'", [1]),
    ("span.attributes.model IS NOT NULL", [1]),
    ("text LIKE '%gpt%'", [1]),
    ("feedback.good > 0.4", [1]),
    ("feedback.good = 0.5", [1]),
    ("feedback.good = '0.5'", [1]),
    ("feedback.good > 0.6", []),
    ("feedback.word = 'yes'", [2]),
    ("feedback.word IS NULL", [3, 1]),
    ("expectation.word = 'yes'", []),
    ("issue.id = 'i-1'", [3]),
]


@pytest.fixture
def filled(traces: Traces, run: Any) -> Traces:
    async def fill() -> None:
        one = {"team": "a", "mlflow.traceName": "t1"}
        await traces.put(CALLER, trace(1, tags=one, metadata={"k": "v"}, assessments=[said()]))
        word = said(name="word", value="yes")
        two = {"team": "b", "mlflow.traceName": "t2"}
        await traces.put(
            CALLER,
            trace(2, tags=two, metadata={"mlflow.sourceRun": "r1"}, client_request_id="c", assessments=[word]),
        )
        issue = said(kind=AssessmentKind.ISSUE, name="i-1", value="i-1")
        await traces.put(CALLER, trace(3, state=TraceState.ERROR, execution_ms=100, assessments=[issue]))
        inner = span(span_id="2", parent_id="1", name="inner", type="LLM", attributes={"model": "gpt", "a b": 7})
        await traces.add_spans(CALLER, HERE, [span(), inner], {})
        await traces.link_run(CALLER, [named(1), named(9)], "r1")
        await traces.link_prompts(CALLER, named(3), ["p/1"])

    run(fill())
    return traces


@pytest.mark.parametrize(("filter_text", "numbers"), SEARCHES)
async def test_searches(filled: Traces, filter_text: str, numbers: list[int]) -> None:
    assert await found(filled, filter_text) == numbers


async def test_orders(filled: Traces) -> None:
    assert await found(filled, "", ("tags.team DESC",)) == [2, 1, 3]
    assert await found(filled, "", ("execution_time ASC", "request_id DESC")) == [2, 1, 3]
    assert await found(filled, "", ("name",)) == [1, 2, 3]


@pytest.mark.parametrize("order", [(), ("tags.team",), ("execution_time DESC", "timestamp ASC")])
async def test_pages(filled: Traces, order: tuple[str, ...]) -> None:
    query = parse_traces("", order)
    whole, _ = await filled.search(CALLER, query, [HERE], 100, "")
    seen: list[Trace] = []
    token = ""
    while True:
        page, token = await filled.search(CALLER, query, [HERE], 1, token)
        seen += page
        if not token:
            break
    assert seen == whole
    with pytest.raises(InvalidPageToken):
        await filled.search(CALLER, query, [HERE], 1, "nonsense")


async def test_several_experiments_in_one_order(traces: Traces, db: Database) -> None:
    other = (await Experiments(db).create(CALLER, "other")).id
    for number in range(1, 7):
        await traces.put(CALLER, trace(number, experiment_id=other if number % 2 else HERE))
    selected, token = await traces.search(CALLER, parse_traces(""), [HERE, other], 4, "")
    assert [each.request_ms for each in selected] == [1_006, 1_005, 1_004, 1_003]
    selected, token = await traces.search(CALLER, parse_traces(""), [HERE, other], 4, token)
    assert ([each.request_ms for each in selected], token) == ([1_002, 1_001], "")


async def test_a_page_of_long_traces_has_fewer(traces: Traces) -> None:
    much = [said(assessment_id=f"a-{each}", value="x" * 65_000) for each in range(50)]  # 3.25 MB
    for number in range(1, 6):
        await traces.put(CALLER, trace(number, assessments=much))
    pages, token = [], ""
    while not pages or token:
        page, token = await traces.search(CALLER, parse_traces(""), [HERE], 100, token)
        pages.append([each.request_ms for each in page])
    assert pages == [[1_005, 1_004, 1_003], [1_002, 1_001]]


async def test_expressions_that_postgresql_does_not_take(filled: Traces) -> None:
    with pytest.raises(InvalidArgument, match="regular expression"):
        await found(filled, "name RLIKE '('")
    for refused in (r"name RLIKE '(a)\1'", "span.colour = 'a'", "text > 'a'"):
        with pytest.raises(InvalidFilter):
            parse_traces(refused)


async def test_a_search_that_takes_too_long_is_not_asked_again(filled: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(conn: Connection, sql: str, parameters: Parameters) -> Any:
        return await conn.fetch("SELECT pg_sleep(20)")

    monkeypatch.setattr(search_traces, "_LONGEST_MS", 50)
    monkeypatch.setattr(search_traces, "fetch", slow)
    with pytest.raises(InvalidArgument, match="narrow it"):
        await found(filled, "text LIKE '%a%'")
    monkeypatch.undo()
    assert await found(filled, "") == [3, 2, 1]


async def test_those_of_an_experiment_are_removed_oldest_first(filled: Traces, nudges: list[None]) -> None:
    assert await filled.delete(CALLER, HERE, until_ms=1_002, limit=1) == 1
    assert await found(filled, "") == [3, 2]
    assert await filled.delete(CALLER, HERE, trace_ids=[named(3), named(9)]) == 1
    assert await filled.delete(CALLER, HERE, until_ms=1_000) == 0
    assert await found(filled, "") == [2]
    assert len(nudges) == 2


async def test_who_removes_and_who_links_never_wait_in_a_circle(traces: Traces, db: Database) -> None:
    first, second = trace(1, request_ms=2_000), trace(2, request_ms=1_000)  # the older is the second by its id
    for each in (first, second):
        await traces.put(CALLER, each)
    async with db.transaction() as conn:
        await conn.execute("SET LOCAL lock_timeout = '2s'")
        await linked(conn, CALLER.workspace_id, [named(1)], "r")
        removing = asyncio.create_task(traces.delete(CALLER, HERE, until_ms=9_000))
        while not (await execute(db, "SELECT count(*) FROM pg_locks WHERE NOT granted"))[0][0]:
            await asyncio.sleep(0.01)
        await linked(conn, CALLER.workspace_id, [named(2)], "r")
    assert await removing == 2


async def test_an_assessment_that_is_overridden_counts_no_more(filled: Traces, db: Database) -> None:
    assessments = Assessments(db)
    await assessments.create(CALLER, named(1), said(assessment_id="a-2", value="bad", overrides="a-1"))
    assert await found(filled, "feedback.good > 0.4") == []
    assert await found(filled, "feedback.good = 'bad'") == [1]
    await assessments.delete(CALLER, named(1), "a-2")
    await assessments.delete(CALLER, named(1), "a-2")
    assert await found(filled, "feedback.good > 0.4") == [1]


async def test_an_assessment_that_two_override_is_valid_when_both_are_gone(filled: Traces, db: Database) -> None:
    assessments = Assessments(db)
    for over in ("a-2", "a-3", "a-4"):
        await assessments.create(CALLER, named(1), said(assessment_id=over, value="bad", overrides="a-1"))
    await assessments.delete(CALLER, named(1), "a-2")
    assert not (await assessments.get(CALLER, named(1), "a-1")).valid
    await asyncio.gather(*(assessments.delete(CALLER, named(1), each) for each in ("a-3", "a-4")))
    assert (await assessments.get(CALLER, named(1), "a-1")).valid


async def test_who_reads_an_assessment_waits_for_nobody(filled: Traces, db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("UPDATE trace_assessments SET rationale = 'changed'")
        async with asyncio.timeout(10):
            assert (await Assessments(db).get(CALLER, named(1), "a-1")).rationale is None


async def test_numbers_are_compared_as_such_whatever_their_size(traces: Traces) -> None:
    for number, value in enumerate((1_234_567, 0.12345678, "yes"), 1):
        await traces.put(CALLER, trace(number, assessments=[said(value=value)]))
    assert await found(traces, "feedback.good IN (1234567)") == [1]
    assert await found(traces, "feedback.good IN ('1234567', 'yes')") == [3, 1]
    assert await found(traces, "feedback.good IN (0.12345678, 'yes')") == [3, 2]
    assert await found(traces, "feedback.good NOT IN (1234567, 0.5)") == [3, 2]


async def test_an_assessment_is_changed(filled: Traces, db: Database) -> None:
    assessments = Assessments(db)
    await assessments.update(CALLER, named(1), "a-1", lambda each: replace(each, value={"zeta": 1, "a": 2}))
    kept = await assessments.get(CALLER, named(1), "a-1")
    assert list(kept.value) == ["zeta", "a"]
    with pytest.raises(NotFound):
        await assessments.get(CALLER, named(1), "a-9")
    with pytest.raises(NotFound):
        await assessments.create(CALLER, named(1), said(assessment_id="a-3", overrides="a-9"))


async def test_files_go_with_their_trace_and_traces_with_their_experiment(
    db: Database, local: Store, traces: Traces, tmp_path: Path
) -> None:
    experiments = Experiments(db)
    gone = (await experiments.create(CALLER, "gone")).id
    spot = await place(db, local)
    for number, experiment_id in ((1, gone), (2, HERE), (3, HERE)):
        await traces.put(CALLER, trace(number, experiment_id=experiment_id, assessments=[said()]))
        await traces.add_spans(CALLER, experiment_id, [span(number)], {})
        files = spot.another()
        files.owner = parse_owner(named(number))
        await files.upload("traces.json", b"." * 100)
    kept = files
    await traces.delete(CALLER, HERE, trace_ids=[named(2)])
    await experiments.delete(CALLER, gone)
    await execute(db, "UPDATE experiments SET updated_ms = updated_ms - 172800000")
    all_of_one = Removal(traces=1, experiments=1, files=1, bytes=100)
    assert await Retention(db, 86_400_000).survey() == all_of_one
    assert await Retention(db, 86_400_000).remove(local, 1) == all_of_one
    assert [each.trace_id for each in await traces.get_many(CALLER, [named(n) for n in (1, 2, 3)])] == [named(3)]
    assert [row[0] for row in await execute(db, "SELECT count(*) FROM trace_spans")] == [1]
    assert await kept.read("traces.json") == b"." * 100
    left = [path for path in (tmp_path / "artifacts").rglob("traces.json") if path.is_file()]
    assert len(left) == 1
