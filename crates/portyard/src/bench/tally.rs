//! What a load counts, and how it is shown.

use std::time::Duration;

use hdrhistogram::Histogram;
use portyard_core::exit::{Exit, Fatal};
use serde_json::{Map, Value, json};

use super::load::Load;
use crate::connect::Target;
use crate::out::Out;
use crate::stop::Outcome;

/// The counts of one loop, or of several added up.
#[derive(Debug)]
pub struct Tally {
    /// Answers that came in time.
    pub operations: u64,
    /// Bytes of these answers.
    pub bytes: u64,
    /// Requests without an answer (datagrams).
    pub lost: u64,
    /// Connections that broke, and datagrams that were no answer.
    pub errors: u64,
    /// What the last of them was.
    pub last_error: Option<String>,
    latency: Histogram<u64>,
    /// Operations per second, each loop by its own clock.
    rate: f64,
    byte_rate: f64,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Result<Self, Fatal> {
        let latency = Histogram::new_with_bounds(1, LONGEST_NANOS, DIGITS)
            .map_err(|error| Fatal::new(Exit::Software, format!("no histogram: {error}")))?;
        Ok(Self {
            operations: 0,
            bytes: 0,
            lost: 0,
            errors: 0,
            last_error: None,
            latency,
            rate: 0.0,
            byte_rate: 0.0,
        })
    }

    /// Counts `operations` answers that took `latency` each.
    pub fn answered(&mut self, operations: u64, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.operations += operations;
        self.latency.saturating_record_n(nanos.max(1), operations);
    }

    /// Counts something that went wrong.
    pub fn failed(&mut self, what: String) {
        self.errors += 1;
        self.last_error = Some(what);
    }

    /// Ends the counting of one loop.
    pub fn finish(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        self.rate = self.operations as f64 / seconds;
        self.byte_rate = self.bytes as f64 / seconds;
    }

    /// Adds what another loop counted.
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.lost += other.lost;
        self.errors += other.errors;
        self.rate += other.rate;
        self.byte_rate += other.byte_rate;
        self.last_error = other.last_error.or(self.last_error.take());
        // Both have the same bounds.
        let _ = self.latency.add(other.latency);
    }

    /// Prints the result; `shape` are the parameters of the load, in the order to be shown.
    pub fn report(
        &self,
        load: &Load,
        kind: &str,
        target: &Target,
        shape: &[(&str, u64)],
    ) -> Outcome {
        let mut out = Out::new();
        if load.json {
            out.json(&self.json(load, kind, target, shape))?;
        } else {
            self.table(&mut out, load, kind, target, shape)?;
        }
        out.flush()?;
        if self.operations > 0 {
            return Ok(Exit::Ok);
        }
        let why = self.last_error.as_deref().unwrap_or("no answer at all");
        let exit = if self.errors > 0 {
            Exit::Io
        } else {
            Exit::TempFail
        };
        Err(Fatal::new(exit, format!("{}: {why}", target.endpoint)).into())
    }

    fn json(&self, load: &Load, kind: &str, target: &Target, shape: &[(&str, u64)]) -> Value {
        let mut object = Map::new();
        object.insert("kind".into(), kind.into());
        object.insert("endpoint".into(), target.endpoint.to_string().into());
        for (name, value) in shape {
            object.insert((*name).into(), (*value).into());
        }
        object.insert("loops".into(), load.loops.into());
        object.insert("seconds".into(), load.seconds.into());
        object.insert("operations".into(), self.operations.into());
        object.insert("operations_per_second".into(), json!(round(self.rate)));
        object.insert("bytes_per_second".into(), json!(round(self.byte_rate)));
        object.insert("lost".into(), self.lost.into());
        object.insert("errors".into(), self.errors.into());
        let latency: Map<String, Value> = self
            .percentiles()
            .into_iter()
            .map(|(name, micros)| (name.into(), json!(micros)))
            .collect();
        object.insert("latency_us".into(), latency.into());
        Value::Object(object)
    }

    fn table(
        &self,
        out: &mut Out,
        load: &Load,
        kind: &str,
        target: &Target,
        shape: &[(&str, u64)],
    ) -> Result<(), crate::stop::Stop> {
        let shape: Vec<String> = shape
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let (loops, seconds) = (load.loops, load.seconds);
        out.line(format_args!("{kind} {}", target.endpoint))?;
        out.line(format_args!(
            "  load        {}, loops {loops}, seconds {seconds}",
            shape.join(", ")
        ))?;
        out.line(format_args!(
            "  operations  {} ({:.0}/s)",
            self.operations, self.rate
        ))?;
        out.line(format_args!(
            "  answered    {:.3} MB/s",
            self.byte_rate / 1e6
        ))?;
        let latency: Vec<String> = self
            .percentiles()
            .iter()
            .map(|(name, micros)| format!("{name} {micros:.1}"))
            .collect();
        out.line(format_args!("  latency us  {}", latency.join("  ")))?;
        out.line(format_args!("  lost        {}", self.lost))?;
        match &self.last_error {
            Some(error) => out.line(format_args!(
                "  errors      {} (last: {error})",
                self.errors
            )),
            None => out.line(format_args!("  errors      {}", self.errors)),
        }
    }

    /// In microseconds.
    fn percentiles(&self) -> Vec<(&'static str, f64)> {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let mut rows: Vec<(&str, f64)> =
            [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)]
                .into_iter()
                .map(|(name, quantile)| (name, micros(self.latency.value_at_quantile(quantile))))
                .collect();
        rows.push(("max", micros(self.latency.max())));
        rows
    }
}

/// To a tenth, which is more than a measurement is good for.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A minute; what takes longer counts as a minute.
const LONGEST_NANOS: u64 = 60_000_000_000;
/// Significant digits of a latency: within 0.1 %.
const DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut tally = Tally::new().unwrap();
        for micros in 1..=1000 {
            tally.answered(1, Duration::from_micros(micros));
        }
        tally.answered(1, Duration::from_secs(100));
        for ((name, measured), expected) in tally
            .percentiles()
            .into_iter()
            .zip([501.0, 901.0, 991.0, 1000.0, 60e6])
        {
            assert!(
                (measured / expected - 1.0).abs() < 0.002,
                "{name} {measured}"
            );
        }
    }

    #[test]
    fn loops_add_up() {
        let mut sum = Tally::new().unwrap();
        for _ in 0..2 {
            let mut one = Tally::new().unwrap();
            one.answered(100, Duration::from_millis(1));
            one.failed("it broke".into());
            one.finish(Duration::from_secs(2));
            sum.add(one);
        }
        assert_eq!(
            (sum.operations, sum.errors, sum.latency.len()),
            (200, 2, 200)
        );
        assert!((sum.rate - 100.0).abs() < 1e-6);
        assert_eq!(sum.last_error.as_deref(), Some("it broke"));
    }
}
