"""The timetable as Airflow's scheduler, backfill, trigger and serializer see it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pendulum
import pytest
from airflow.exceptions import InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo, TimeRestriction
from airflow.utils.types import DagRunType

from risk.errors import SessionError
from trading_sessions import TradingSessionTimetable

MONDAY_NOON = datetime(2022, 11, 28, 12, tzinfo=UTC)  # the Monday after Thanksgiving, before the close
AROUND_THANKSGIVING = [
    "2022-11-21", "2022-11-22", "2022-11-23", "2022-11-25",
    "2022-11-28", "2022-11-29", "2022-11-30", "2022-12-01", "2022-12-02",
]  # fmt: skip


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("timetable"))


@pytest.fixture
def timetable(cache_dir: str) -> TradingSessionTimetable:
    return at(TradingSessionTimetable(cache_dir=cache_dir), MONDAY_NOON)


def at(timetable: TradingSessionTimetable, now: datetime) -> TradingSessionTimetable:
    timetable.clock = lambda: now
    return timetable


def restriction(earliest: str | None = None, latest: str | None = None, catchup: bool = True) -> TimeRestriction:
    def moment(text: str | None) -> pendulum.DateTime | None:
        return None if text is None else pendulum.instance(datetime.fromisoformat(text).replace(tzinfo=UTC))

    return TimeRestriction(moment(earliest), moment(latest), catchup)


def scheduled(timetable: TradingSessionTimetable, count: int, limits: TimeRestriction) -> list[str]:
    """The partition keys of successive runs, each asked for with the one before it."""
    keys: list[str] = []
    last: DagRunInfo | None = None
    for _ in range(count):
        last = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=limits)
        if last is None:
            break
        keys.append(str(last.partition_key))
    return keys


def backfill(timetable: TradingSessionTimetable, first: str, last: str) -> list[str]:
    limits = restriction(first, last)
    assert limits.earliest is not None
    assert limits.latest is not None
    infos = timetable.iter_partition_dagrun_infos(earliest=limits.earliest, latest=limits.latest)
    return [str(info.partition_key) for info in infos]


# The scheduler's door


def test_catchup_runs_the_missed_sessions_in_order_and_then_waits(timetable: TradingSessionTimetable) -> None:
    limits = restriction("2022-11-22")  # three sessions back
    infos: list[DagRunInfo] = []
    for _ in range(4):
        info = timetable.next_dagrun_info_v2(last_dagrun_info=infos[-1] if infos else None, restriction=limits)
        assert info is not None
        infos.append(info)
    assert [(info.partition_key, info.run_after) for info in infos] == [
        ("2022-11-22", datetime(2022, 11, 22, 22, tzinfo=UTC)),
        ("2022-11-23", datetime(2022, 11, 23, 22, tzinfo=UTC)),
        ("2022-11-25", datetime(2022, 11, 25, 19, tzinfo=UTC)),  # the early close
        ("2022-11-28", datetime(2022, 11, 28, 22, tzinfo=UTC)),  # still ahead: the scheduler waits for it
    ]
    for info in infos:
        assert info.data_interval is None
        assert info.logical_date is None
        assert info.partition_date == datetime.fromisoformat(f"{info.partition_key}T00:00:00+00:00")


def test_without_catchup_only_the_last_closed_one_counts(timetable: TradingSessionTimetable) -> None:
    limits = restriction("2022-11-14", catchup=False)
    assert scheduled(timetable, 2, limits) == ["2022-11-25", "2022-11-28"]


def test_without_catchup_a_gap_is_not_filled(timetable: TradingSessionTimetable) -> None:
    before_the_gap = DagRunInfo(pendulum.datetime(2022, 11, 15, 22), None, None, "2022-11-15")
    info = timetable.next_dagrun_info_v2(last_dagrun_info=before_the_gap, restriction=restriction(catchup=False))
    assert info is not None
    assert info.partition_key == "2022-11-25"
    info = timetable.next_dagrun_info_v2(last_dagrun_info=before_the_gap, restriction=restriction(catchup=True))
    assert info is not None
    assert info.partition_key == "2022-11-16"


@pytest.mark.parametrize("catchup", [True, False])
@pytest.mark.parametrize(
    ("now", "session"),
    [
        (MONDAY_NOON, "2022-11-28"),
        (datetime(2022, 11, 28, 22, 5, tzinfo=UTC), "2022-11-28"),  # due five minutes ago: it isn't lost
        (datetime(2022, 11, 28, 23, 0, tzinfo=UTC), "2022-11-29"),
    ],
)
def test_without_a_start_the_first_is_the_next_close(
    timetable: TradingSessionTimetable, now: datetime, session: str, catchup: bool
) -> None:
    assert scheduled(at(timetable, now), 1, restriction(catchup=catchup)) == [session]


def test_start_and_end_days_are_included(timetable: TradingSessionTimetable) -> None:
    assert scheduled(timetable, 9, restriction("2022-11-22", "2022-11-25")) == [
        "2022-11-22",
        "2022-11-23",
        "2022-11-25",
    ]
    assert scheduled(timetable, 9, restriction("2022-11-22", "2022-11-24 23:00")) == ["2022-11-22", "2022-11-23"]
    assert scheduled(timetable, 1, restriction("2022-11-24")) == ["2022-11-25"]  # Thanksgiving
    assert scheduled(timetable, 1, restriction("1970-01-01")) == ["1990-01-02"]  # as far back as the calendar
    assert scheduled(timetable, 1, restriction("2100-01-01")) == []


def test_the_clock_change_moves_the_run(timetable: TradingSessionTimetable) -> None:
    last: DagRunInfo | None = None
    moments = []
    for _ in range(2):
        last = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction("2022-03-11"))
        assert last is not None
        moments.append(last.run_after)
    # 17:00 in New York both times; summer time began on Sunday the 13th
    assert moments == [datetime(2022, 3, 11, 22, tzinfo=UTC), datetime(2022, 3, 14, 21, tzinfo=UTC)]


def test_nothing_is_scheduled_beyond_a_finite_source(cache_dir: str) -> None:
    finite = at(
        TradingSessionTimetable(first_session="2022-12-22", last_session="2022-12-28", cache_dir=cache_dir),
        datetime(2026, 11, 23, 20, tzinfo=UTC),
    )
    # Christmas fell on a Sunday: Monday the 26th was closed
    assert scheduled(finite, 9, restriction("2022-01-01")) == ["2022-12-22", "2022-12-23", "2022-12-27", "2022-12-28"]
    assert scheduled(finite, 9, restriction("2022-01-01", catchup=False)) == []
    assert scheduled(finite, 9, restriction(catchup=True)) == []
    assert scheduled(finite, 9, restriction(catchup=False)) == []
    assert backfill(finite, "2022-12-01", "2023-01-31") == ["2022-12-22", "2022-12-23", "2022-12-27", "2022-12-28"]
    assert backfill(finite, "2023-01-01", "2023-01-31") == []


@pytest.mark.parametrize("key", [None, "manual-3"])
def test_a_last_run_of_another_schedule_counts_by_its_moment(
    timetable: TradingSessionTimetable, key: str | None
) -> None:
    other = DagRunInfo(pendulum.datetime(2022, 11, 22, 23), None, None, key)
    info = timetable.next_dagrun_info_v2(last_dagrun_info=other, restriction=restriction("2022-11-01"))
    assert info is not None
    assert info.partition_key == "2022-11-23"


# The backfill's door


def test_a_backfill_lists_sessions_only(timetable: TradingSessionTimetable) -> None:
    later = at(timetable, datetime(2022, 12, 10, tzinfo=UTC))
    assert backfill(later, "2022-11-21", "2022-12-02") == AROUND_THANKSGIVING
    assert backfill(later, "2022-11-24", "2022-11-24") == []  # Thanksgiving


def test_a_backfill_leaves_out_what_has_not_closed(timetable: TradingSessionTimetable) -> None:
    assert backfill(timetable, "2022-11-21", "2022-12-02") == AROUND_THANKSGIVING[:4]
    one_second_before = datetime(2022, 11, 28, 21, 59, 59, tzinfo=UTC)
    assert backfill(at(timetable, one_second_before), "2022-11-28", "2022-12-02") == []
    assert backfill(at(timetable, one_second_before + timedelta(seconds=1)), "2022-11-28", "2022-12-02") == [
        "2022-11-28"
    ]
    assert backfill(timetable, "2050-01-01", "2050-12-31") == []


def test_midnight_at_the_exchange_means_that_day(cache_dir: str) -> None:
    """A browser set to Tokyo's time sends the picked days as 15:00 UTC of the days before."""
    tokyo = at(TradingSessionTimetable("XTKS", cache_dir=cache_dir), datetime(2022, 12, 10, tzinfo=UTC))
    expected = ["2022-11-21", "2022-11-22", "2022-11-24", "2022-11-25"]  # the 23rd is Labour Thanksgiving
    assert backfill(tokyo, "2022-11-20 15:00", "2022-11-24 15:00") == expected
    assert backfill(tokyo, "2022-11-21", "2022-11-25") == expected


# The trigger's door


def test_a_key_is_its_sessions_midnight(timetable: TradingSessionTimetable) -> None:
    assert timetable.resolve_partition_date("2022-11-25") == datetime(2022, 11, 25, tzinfo=UTC)
    assert timetable.resolve_partition_date(None) is None


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("2022-11-24", "session 2022-11-24 is not a trading day of XNYS; the last one before it is 2022-11-23 "
                       "and the next is 2022-11-25"),
        ("2022-11-28", "session 2022-11-28 of XNYS closes at 21:00 UTC and runs after 22:00 UTC; it is "
                       "2022-11-28 12:00 UTC, and the last one that can run is 2022-11-25"),
        ("yesterday", "session 'yesterday' is not a date; write it as YYYY-MM-DD, such as 2022-11-25"),
        ("2023-01-03", "session 2023-01-03 is outside the source's 2000-01-03 to 2022-12-28; "
                       "choose a session it has data for"),
        ("1999-12-31", "session 1999-12-31 is outside the source's 2000-01-03 to 2022-12-28; "
                       "choose a session it has data for"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_run_is_refused(cache_dir: str, key: str, sentence: str) -> None:
    bounded = TradingSessionTimetable(first_session="2000-01-03", last_session="2022-12-28", cache_dir=cache_dir)
    with pytest.raises(InvalidPartitionKeyError) as refused:
        at(bounded, MONDAY_NOON).resolve_partition_date(key)
    assert str(refused.value) == sentence


def test_a_logical_date_is_allowed(timetable: TradingSessionTimetable) -> None:
    """`airflow dags test` always gives one."""
    moment = pendulum.datetime(2022, 11, 28, 12)
    interval = timetable.infer_manual_data_interval(run_after=moment)
    assert (interval.start, interval.end) == (moment, moment)


# Names, words, form


def test_run_ids_carry_the_session_and_are_never_the_same(timetable: TradingSessionTimetable) -> None:
    moment = pendulum.datetime(2022, 11, 25, 19)

    def name(run_type: DagRunType, **extra: str) -> str:
        return timetable.generate_run_id(run_type=run_type, run_after=moment, data_interval=None, **extra)

    for run_type in (DagRunType.SCHEDULED, DagRunType.BACKFILL_JOB, DagRunType.MANUAL):
        names = {name(run_type, partition_key="2022-11-25") for _ in range(20)}
        assert len(names) == 20
        assert all(re.fullmatch(rf"{run_type}__2022-11-25__[0-9a-f]{{8}}", one) for one in names)
        assert all(DagRunType.from_run_id(one) == run_type for one in names)
    triggered = name(DagRunType.MANUAL)  # the REST API names a run before it looks at the key
    assert re.fullmatch(r"manual__2022-11-25T19:00:00__[0-9a-f]{8}", triggered)
    assert re.fullmatch(r"[A-Za-z0-9_.~:+-]+", triggered)  # scheduler.allowed_run_id_pattern


def test_words_in_the_ui(timetable: TradingSessionTimetable) -> None:
    assert timetable.summary == "XNYS close + 60 min"
    assert timetable.description == "Each XNYS session, 60 minutes after its close"
    assert timetable.partitioned
    assert timetable.periodic


def test_settings_survive_serialization(tmp_path: Path) -> None:
    settings = {
        "exchange": "XLON",
        "close_delay_minutes": 90,
        "first_session": "2020-01-02",
        "last_session": "2022-12-28",
        "overrides": str(tmp_path / "overrides.toml"),
        "cache_dir": str(tmp_path),
    }
    assert TradingSessionTimetable(**settings).serialize() == settings  # type: ignore[arg-type]
    again = TradingSessionTimetable.deserialize(settings)
    assert again.serialize() == settings
    assert TradingSessionTimetable.deserialize({}).serialize() == TradingSessionTimetable().serialize()


def test_overrides_reach_the_scheduler(tmp_path: Path, cache_dir: str) -> None:
    overrides = tmp_path / "overrides.toml"
    overrides.write_text(
        '[[override]]\nexchange = "XNYS"\ndate = 2022-11-22\nclosed = true\n'
        'announced_at = 2022-11-20\nsource = "a notice"\n'
    )
    mourning = at(TradingSessionTimetable(overrides=str(overrides), cache_dir=cache_dir), MONDAY_NOON)
    assert scheduled(mourning, 2, restriction("2022-11-21")) == ["2022-11-21", "2022-11-23"]
    closed_tuesday = DagRunInfo(pendulum.datetime(2022, 11, 22, 22), None, None, "2022-11-22")
    info = mourning.next_dagrun_info_v2(last_dagrun_info=closed_tuesday, restriction=restriction("2022-11-21"))
    assert info is not None
    assert info.partition_key == "2022-11-23"


def test_settings_that_make_no_sense_are_refused_where_they_are_written() -> None:
    with pytest.raises(SessionError, match="is not a date"):
        TradingSessionTimetable(last_session="28.12.2022")


def test_the_real_clock_drives_it(cache_dir: str) -> None:
    """With no clock set, a backfill to tomorrow ends before now."""
    real = TradingSessionTimetable(cache_dir=cache_dir)
    now = datetime.now(UTC)
    infos = list(real.iter_partition_dagrun_infos(earliest=now - timedelta(days=14), latest=now + timedelta(days=1)))
    assert 7 <= len(infos) <= 11
    assert all(info.run_after <= datetime.now(UTC) for info in infos)
    assert infos[0].partition_date is not None
    assert infos[0].partition_date.date() >= date.today() - timedelta(days=15)
