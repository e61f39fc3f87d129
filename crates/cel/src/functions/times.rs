//! Parts of timestamps and durations.

use super::{Outcome, Row, fail, mismatch};
use crate::value::Value;
use jiff::Zoned;
use jiff::tz::{Offset, TimeZone};

const HOUR: i64 = 3_600_000_000_000;
const MINUTE: i64 = 60_000_000_000;
const SECOND: i64 = 1_000_000_000;
const MILLI: i64 = 1_000_000;

pub(super) const ROWS: &[Row] = &[
    ("getFullYear", "timestamp_to_year", "timestamp.() -> int", |a| part(a, |t| t.year().into())),
    ("getFullYear", "timestamp_to_year_with_tz", "timestamp.(string) -> int", |a| {
        part(a, |t| t.year().into())
    }),
    ("getMonth", "timestamp_to_month", "timestamp.() -> int", month),
    ("getMonth", "timestamp_to_month_with_tz", "timestamp.(string) -> int", month),
    ("getDayOfYear", "timestamp_to_day_of_year", "timestamp.() -> int", day_of_year),
    ("getDayOfYear", "timestamp_to_day_of_year_with_tz", "timestamp.(string) -> int", day_of_year),
    ("getDayOfMonth", "timestamp_to_day_of_month", "timestamp.() -> int", day_of_month),
    ("getDayOfMonth", "timestamp_to_day_of_month_with_tz", "timestamp.(string) -> int", day_of_month),
    ("getDate", "timestamp_to_day_of_month_1_based", "timestamp.() -> int", date),
    ("getDate", "timestamp_to_day_of_month_1_based_with_tz", "timestamp.(string) -> int", date),
    ("getDayOfWeek", "timestamp_to_day_of_week", "timestamp.() -> int", day_of_week),
    ("getDayOfWeek", "timestamp_to_day_of_week_with_tz", "timestamp.(string) -> int", day_of_week),
    ("getHours", "timestamp_to_hours", "timestamp.() -> int", |a| part(a, |t| t.hour().into())),
    ("getHours", "timestamp_to_hours_with_tz", "timestamp.(string) -> int", |a| part(a, |t| t.hour().into())),
    ("getHours", "duration_to_hours", "duration.() -> int", |a| units(a, HOUR)),
    ("getMinutes", "timestamp_to_minutes", "timestamp.() -> int", |a| part(a, |t| t.minute().into())),
    ("getMinutes", "timestamp_to_minutes_with_tz", "timestamp.(string) -> int", |a| {
        part(a, |t| t.minute().into())
    }),
    ("getMinutes", "duration_to_minutes", "duration.() -> int", |a| units(a, MINUTE)),
    ("getSeconds", "timestamp_to_seconds", "timestamp.() -> int", |a| part(a, |t| t.second().into())),
    ("getSeconds", "timestamp_to_seconds_tz", "timestamp.(string) -> int", |a| {
        part(a, |t| t.second().into())
    }),
    ("getSeconds", "duration_to_seconds", "duration.() -> int", |a| units(a, SECOND)),
    ("getMilliseconds", "timestamp_to_milliseconds", "timestamp.() -> int", milliseconds),
    ("getMilliseconds", "timestamp_to_milliseconds_with_tz", "timestamp.(string) -> int", milliseconds),
    ("getMilliseconds", "duration_to_milliseconds", "duration.() -> int", |a| units(a, MILLI)),
];

fn month<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    part(args, |t| i64::from(t.month()) - 1)
}

fn day_of_year<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    part(args, |t| i64::from(t.day_of_year()) - 1)
}

fn day_of_month<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    part(args, |t| i64::from(t.day()) - 1)
}

fn date<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    part(args, |t| t.day().into())
}

fn day_of_week<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    part(args, |t| t.weekday().to_sunday_zero_offset().into())
}

fn milliseconds<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    part(args, |t| t.millisecond().into())
}

fn units<'a>(args: &[Value<'a>], unit: i64) -> Outcome<'a> {
    let [Value::Duration(nanos)] = args else { return mismatch() };
    Ok(Value::Int(nanos / unit))
}

/// A part of the time in UTC, or in the zone that is named (`Europe/Berlin`) or told as an offset (`-02:30`).
fn part<'a>(args: &[Value<'a>], of: fn(&Zoned) -> i64) -> Outcome<'a> {
    let [Value::Timestamp(time), zone @ ..] = args else { return mismatch() };
    let zone = match zone {
        [] => TimeZone::UTC,
        [Value::String(zone)] => match time_zone(zone) {
            Some(zone) => zone,
            None => return fail(format!("unknown time zone {}", &**zone)),
        },
        _ => return mismatch(),
    };
    Ok(Value::Int(of(&time.to_zoned(zone))))
}

fn time_zone(name: &str) -> Option<TimeZone> {
    let Some((hours, minutes)) = name.split_once(':') else { return TimeZone::get(name).ok() };
    let negative = hours.starts_with('-');
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = hours.checked_mul(3600)?.checked_add(minutes * 60 * if negative { -1 } else { 1 })?;
    Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
}
