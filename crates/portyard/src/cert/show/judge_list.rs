//! What would fail with a revocation list.

use std::time::{Duration, SystemTime};

use super::Finding;
use super::item::List;
use super::trust::{Trust, signed_list};
use super::when::{date, moment, whole_days};

/// What is to be said about a list, with the time and the authorities that are trusted.
pub fn judge_list(list: &List, now: SystemTime, trust: Option<&Trust>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let renew = "make the next one: portyard cert crl --ca DIR";
    match list.next_update.map(moment) {
        None => findings.push(Finding::note("it does not say when the next one comes")),
        Some(next) if next < now => findings.push(Finding::fails(format!(
            "it should have been renewed by {}, and nobody is let in with it; {renew}",
            date(next)
        ))),
        Some(next) => {
            let left = next.duration_since(now).unwrap_or_default();
            if left < LIST_SOON {
                let (next, days) = (date(next), whole_days(left));
                findings.push(Finding::note(format!(
                    "it must be renewed by {next}, in {days} days; {renew}"
                )));
            }
        }
    }
    if moment(list.this_update) > now {
        findings.push(Finding::fails("it is of the future; is the clock right?"));
    }
    if let Some(trust) = trust
        && !trust
            .authorities
            .iter()
            .any(|authority| signed_list(authority, &list.der))
    {
        findings.push(Finding::fails("it is not signed by --ca"));
    }
    findings
}

/// A list is renewed more often.
const LIST_SOON: Duration = Duration::from_secs(7 * 86_400);
