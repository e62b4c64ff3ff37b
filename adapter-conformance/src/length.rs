//! How long faults, load and pauses are: short by default, at full length with `--soak <minutes>`. The only place that says so.

use std::{ffi::OsString, ops::Range, time::Duration};

use crate::LabResult;

/// The flag of the command line, in front of those of `cargo test`.
const FLAG: &str = "--soak";

/// The length of one fault case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Length {
    /// The case goes on with its faults for so long; zero: it has each of them as often as it must.
    pub(crate) share: Duration,
    /// How long a fault lasts beyond the moment at which it has shown.
    pub(crate) hold: Range<Duration>,
    /// Messages that each publisher gets through before, between and after faults.
    pub(crate) load: u64,
    /// Attempts that each publisher makes during a fault, at least.
    pub(crate) attempts: u64,
    /// Messages that each publisher sends at once where a case has a burst.
    pub(crate) burst: u64,
    /// Messages that each publisher sends when all is well again, and that must arrive.
    pub(crate) finals: u64,
    /// Between two messages of a publisher.
    pub(crate) pause: Duration,
}

impl Length {
    /// A few seconds for a case, as in CI.
    pub(crate) const fn brief() -> Self {
        Self {
            share: Duration::ZERO,
            hold: Duration::ZERO..Duration::ZERO,
            load: 20,
            attempts: 15,
            burst: 500,
            finals: 20,
            pause: Duration::from_millis(8),
        }
    }

    /// Faults as long as they are in production, again and again for `share`.
    pub(crate) const fn soak(share: Duration) -> Self {
        Self {
            share,
            hold: Duration::ZERO..Duration::from_secs(10),
            load: 300,
            attempts: 100,
            burst: 2_000,
            finals: 200,
            pause: Duration::from_millis(4),
        }
    }

    /// Whether this is a soak.
    pub(crate) const fn is_soak(&self) -> bool {
        !self.share.is_zero()
    }
}

/// Takes `--soak <minutes>` out of the arguments of a command line; returns the rest and the time.
///
/// # Errors
/// If the minutes are missing or no positive number.
pub(crate) fn take_soak(
    arguments: impl IntoIterator<Item = OsString>,
) -> LabResult<(Vec<OsString>, Option<Duration>)> {
    let mut arguments = arguments.into_iter();
    let (mut rest, mut soak) = (Vec::new(), None);
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        let value = match text.split_once('=') {
            Some((FLAG, value)) => Some(value.to_owned()),
            _ if text == FLAG => {
                let next = arguments.next().and_then(|next| next.into_string().ok());
                Some(next.unwrap_or_default())
            }
            _ => None,
        };
        match value {
            None => rest.push(argument),
            Some(value) => soak = Some(minutes(&value)?),
        }
    }
    Ok((rest, soak))
}

fn minutes(value: &str) -> LabResult<Duration> {
    let wrong =
        || format!("{FLAG} needs a number of minutes, for example {FLAG} 30, not {value:?}");
    let minutes: f64 = value.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| wrong())?;
    match time.is_zero() {
        true => Err(wrong().into()),
        false => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(arguments: &[&str]) -> Result<(Vec<String>, Option<Duration>), String> {
        let arguments = arguments.iter().map(OsString::from);
        let (rest, soak) = take_soak(arguments).map_err(|error| error.to_string())?;
        let rest = rest.into_iter().map(|it| it.into_string().unwrap());
        Ok((rest.collect(), soak))
    }

    #[test]
    fn the_flag_is_taken_and_the_rest_is_left() {
        let half_an_hour = Some(Duration::from_secs(1_800));
        for arguments in [
            &["test", "--soak", "30", "faults::", "--exact"][..],
            &["test", "faults::", "--soak=30", "--exact"],
        ] {
            let (rest, soak) = taken(arguments).unwrap();
            assert_eq!(rest, ["test", "faults::", "--exact"]);
            assert_eq!(soak, half_an_hour);
        }
        let (rest, soak) = taken(&["test", "--list"]).unwrap();
        assert_eq!((rest.len(), soak), (2, None));
    }

    #[test]
    fn what_is_no_number_of_minutes_is_refused() {
        for wrong in ["", "soon", "0", "-1", "NaN", "inf"] {
            let error = taken(&["test", "--soak", wrong]).unwrap_err();
            assert!(error.contains("number of minutes"), "{error}");
        }
        assert!(taken(&["test", "--soak"]).is_err());
    }
}
