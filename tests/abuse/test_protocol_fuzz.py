"""The types that travel: what is written can be read again, and nothing else can."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from fuzz_counts import COUNTS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from device_bench import commands, protocol, wire
from device_bench.errors import BadInputError
from device_bench.protocol import Limits, Record, Rounds, RuntimeName, TimingPolicy
from device_bench.wire import (
    JOB,
    CompareJob,
    Job,
    MeasureJob,
    Pairing,
    PredictJob,
    ProfileJob,
    RemoteRequest,
)

RECORDS = sorted(
    {
        found
        for module in (protocol, wire, commands)
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Record) and found is not Record
    },
    key=lambda found: found.__name__,
)

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SECONDS = st.floats(min_value=0.001, max_value=1e6)
REQUESTS = st.builds(
    RemoteRequest,
    sha256=DIGESTS,
    runtime=st.sampled_from(RuntimeName),
    accelerator=st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
    threads=st.integers(1, 1024),
    cores=st.lists(st.integers(0, 1 << 20), max_size=8).map(tuple),
    timing=st.builds(
        TimingPolicy,
        warmup_runs=st.integers(1, 1 << 40),
        warmup_seconds=SECONDS,
        min_samples=st.integers(1, 1 << 40),
        min_seconds=SECONDS,
        max_seconds=SECONDS,
    ),
    limits=st.builds(
        Limits,
        wall_seconds=SECONDS,
        cpu_seconds=st.integers(1, 1 << 40),
        address_space_bytes=st.none() | st.integers(1, 1 << 60),
        network=st.booleans(),
    ),
    seed=st.integers(0, 2**63 - 1),
)
JOBS: st.SearchStrategy[Job] = st.one_of(
    st.builds(MeasureJob, request=REQUESTS),
    st.builds(ProfileJob, request=REQUESTS),
    st.builds(PredictJob, request=REQUESTS, inputs_sha256=DIGESTS),
    st.builds(
        CompareJob,
        first=REQUESTS,
        second=REQUESTS,
        rounds=st.builds(Rounds, count=st.integers(1, 1000), seconds=st.floats(0.01, 60)),
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JOBS)
@settings(max_examples=300, deadline=None)
def test_jobs_round_trip(job: Job) -> None:
    COUNTS["jobs written and read"] += 1
    assert JOB.validate_json(job.model_dump_json()) == job


@given(JOBS, st.data())
@settings(max_examples=300, deadline=None)
def test_a_job_changed_anywhere_is_refused_or_itself_valid(job: Job, data: st.DataObject) -> None:
    """Whatever is put in a place of a job: it is refused, or what is read means the same when written."""
    COUNTS["jobs with one place changed"] += 1
    document = json.loads(job.model_dump_json())
    holder: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(holder)))
        if not isinstance(holder[key], dict) or data.draw(st.booleans()):
            break
        holder = holder[key]
    holder[key] = data.draw(JSON)
    try:
        read = JOB.validate_json(json.dumps(document))
    except ValidationError:
        return
    assert JOB.validate_json(read.model_dump_json()) == read


@given(st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_what_is_no_job_is_refused_as_such(content: bytes) -> None:
    COUNTS["bytes read as jobs"] += 1
    with pytest.raises(ValidationError):
        JOB.validate_json(content)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_unknown_keys_are_refused(record: type[Record]) -> None:
    COUNTS["records with an unknown key"] += 1
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(record).validate_python({"surprise": 1})
    assert ("surprise",) in {
        error["loc"] for error in caught.value.errors() if error["type"] == "extra_forbidden"
    }


@given(DIGESTS, st.text(min_size=16, max_size=256))
@settings(max_examples=200, deadline=None)
def test_pairing_lines_round_trip(fingerprint: str, token: str) -> None:
    COUNTS["pairing lines written and read"] += 1
    try:
        pairing = Pairing(fingerprint=fingerprint, token=token)
        line = pairing.line()
    except ValueError:  # lone surrogates have no UTF-8
        assert any("\ud800" <= letter <= "\udfff" for letter in token)
        return
    assert "\n" not in line and " " not in line
    assert Pairing.from_line(f"  {line}\n") == pairing


@given(st.text(max_size=300) | st.text(max_size=300).map(lambda text: f"edgeloop-pair-1:{text}"))
@settings(max_examples=300, deadline=None)
def test_what_is_no_pairing_line_is_refused_without_repeating_it(text: str) -> None:
    COUNTS["text read as pairing lines"] += 1
    with pytest.raises(BadInputError, match="no pairing line") as caught:
        Pairing.from_line(text)
    assert len(text) < 80 or text[20:] not in str(caught.value)


@given(DIGESTS, st.text("abcXYZ012-_", min_size=16, max_size=64), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_pairing_line(fingerprint: str, token: str, data: st.DataObject) -> None:
    """Cut anywhere, it is refused: half a secret must not be taken for a whole one."""
    COUNTS["pairing lines cut short"] += 1
    line = Pairing(fingerprint=fingerprint, token=token).line()
    cut = data.draw(st.integers(0, len(line) - 1))
    with pytest.raises(BadInputError):
        Pairing.from_line(line[:cut])
