//! The date of a conversation: the local one at its beginning, which stays while the conversation goes on.

use huozi_token::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use std::time::SystemTime;

/// The local date and time, in whole seconds.
#[must_use]
pub fn local_now() -> DateTime {
    whole(&ZonedDateTime::now())
}

/// The local date and time of a moment, in whole seconds; `None` beyond what a calendar has.
pub(super) fn local(time: SystemTime) -> Option<DateTime> {
    let time = Timestamp::try_from(time).ok()?;
    Some(whole(&time.to_zoned_datetime(TimeZone::system())))
}

fn whole(time: &ZonedDateTime) -> DateTime {
    let time = time.datetime();
    DateTime::from_parts(time.date(), jiff::civil::time(time.hour(), time.minute(), time.second(), 0))
}
