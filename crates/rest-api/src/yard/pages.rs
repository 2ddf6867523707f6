//! The metrics pages of several daemons as one, each sample with the daemon that it is of. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// What came before it, Prometheus' text format 0.0.4: other programs read it, and browsers show it.
    Plain,
}

/// One family of metrics: what describes it, and its samples.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    unit: String,
    samples: String,
}

impl Family {
    /// What it is called in a format, and its type there.
    fn as_in(&self, name: &str, format: Format) -> (String, &str) {
        match (format, &*self.kind) {
            // Here a family is called as its samples.
            (Format::Plain, "counter") => (format!("{name}_total"), "counter"),
            (Format::Plain, "info") => (format!("{name}_info"), "gauge"),
            (Format::Plain, "stateset" | "gaugehistogram" | "unknown" | "") => {
                (name.to_owned(), "untyped")
            }
            (_, kind) => (name.to_owned(), kind),
        }
    }

    fn describe(&self, name: &str, format: Format) -> String {
        let (name, kind) = self.as_in(name, format);
        let unit = match format {
            Format::OpenMetrics => &self.unit,
            Format::Plain => "",
        };
        let mut lines = String::new();
        for (what, said) in [("HELP", &*self.help), ("TYPE", kind), ("UNIT", unit)] {
            if !said.is_empty() {
                // Writing into a String does not fail.
                let _ = writeln!(lines, "# {what} {name} {said}");
            }
        }
        lines
    }
}

/// The pages, which are OpenMetrics, as one page. Families of one name become one; a daemon that
/// takes such a name for another type of metric is left out of that family. `None` stands for a daemon
/// that has not answered.
pub fn merge<'a>(
    pages: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    format: Format,
) -> String {
    let mut order: Vec<String> = Vec::new();
    let mut families: HashMap<String, Family> = HashMap::new();
    let mut up = String::from(
        "# HELP portyard_yard_up Whether the daemon has shown its metrics.\n\
         # TYPE portyard_yard_up gauge\n",
    );
    for (daemon, page) in pages {
        // Writing into a String does not fail.
        let _ = writeln!(
            up,
            "portyard_yard_up{{daemon=\"{}\"}} {}",
            escape(daemon),
            u8::from(page.is_some())
        );
        let mut here = Here::default();
        for line in page.unwrap_or_default().lines() {
            if let Some(about) = line.strip_prefix("# ") {
                here.about(about, &mut order, &mut families);
            } else if !line.is_empty() {
                here.sample(daemon, line, &mut families);
            }
        }
    }
    let mut all = up;
    for name in order {
        let family = families.remove(&name).unwrap_or_default();
        if !family.samples.is_empty() {
            all += &family.describe(&name, format);
            all += &family.samples;
        }
    }
    if format == Format::OpenMetrics {
        all += "# EOF\n";
    }
    all
}

/// Where we are within a page.
#[derive(Default)]
struct Here {
    family: String,
    /// This page is the first with this family, and describes it.
    describes: bool,
    /// It means something else by that name than the page that described it.
    differs: bool,
}

impl Here {
    fn about(
        &mut self,
        about: &str,
        order: &mut Vec<String>,
        families: &mut HashMap<String, Family>,
    ) {
        let mut words = about.splitn(3, ' ');
        let (Some(what @ ("TYPE" | "HELP" | "UNIT")), Some(name)) = (words.next(), words.next())
        else {
            return;
        };
        if self.family != name {
            name.clone_into(&mut self.family);
            self.describes = !families.contains_key(name);
            self.differs = false;
            if self.describes {
                order.push(name.into());
                families.insert(name.into(), Family::default());
            }
        }
        let said = words.next().unwrap_or_default();
        let Some(family) = families.get_mut(name) else {
            return;
        };
        match what {
            "TYPE" if !self.describes => self.differs = family.kind != said,
            _ if !self.describes => {}
            "TYPE" => said.clone_into(&mut family.kind),
            "HELP" => said.clone_into(&mut family.help),
            _ => said.clone_into(&mut family.unit),
        }
    }

    fn sample(&self, daemon: &str, line: &str, families: &mut HashMap<String, Family>) {
        let name = line.split([' ', '{']).next().unwrap_or_default();
        // A sample is called as its family, with an ending of its type perhaps.
        if self.differs || self.family.is_empty() || !name.starts_with(&self.family) {
            return;
        }
        let Some(family) = families.get_mut(&self.family) else {
            return;
        };
        let rest = &line[name.len()..];
        let label = escape(daemon);
        let out = &mut family.samples;
        let _ = match rest.strip_prefix('{') {
            Some(rest) if rest.starts_with('}') => {
                writeln!(out, "{name}{{daemon=\"{label}\"{rest}")
            }
            Some(rest) => writeln!(out, "{name}{{daemon=\"{label}\",{}", exported(rest)),
            None => writeln!(out, "{name}{{daemon=\"{label}\"}}{rest}"),
        };
    }
}

/// Labels, and what follows them, with a label `daemon` of theirs called as Prometheus would.
fn exported(labels: &str) -> String {
    let (mut in_quotes, mut escaped, mut at_name) = (false, false, true);
    for (at, char) in labels.char_indices() {
        if at_name && labels[at..].starts_with("daemon=\"") {
            return format!("{}exported_{}", &labels[..at], &labels[at..]);
        }
        at_name = false;
        match char {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => at_name = true,
            '}' if !in_quotes => break,
            _ => {}
        }
    }
    labels.into()
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
        a_bytes_total{listener=\"x,daemon=\\\"q\\\"\"} 5\n# HELP b B.\n# TYPE b gauge\nb 1\n\
        # HELP build What.\n# TYPE build info\nbuild_info{version=\"1\",daemon=\"echo-tcp\"} 1\n# EOF\n";

    #[test]
    fn families_of_one_name_stand_together_and_each_sample_tells_its_daemon() {
        let two = "# HELP b B.\n# TYPE b gauge\nb{} 2\n# HELP a_bytes Bytes.\n\
            # TYPE a_bytes counter\na_bytes_total 6\n# EOF\n";
        let all = [("one", Some(ONE)), ("two", Some(two)), ("three", None)];
        let merged = merge(all.into_iter(), Format::OpenMetrics);
        let expected = "# HELP portyard_yard_up Whether the daemon has shown its metrics.\n\
            # TYPE portyard_yard_up gauge\nportyard_yard_up{daemon=\"one\"} 1\n\
            portyard_yard_up{daemon=\"two\"} 1\nportyard_yard_up{daemon=\"three\"} 0\n\
            # HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
            a_bytes_total{daemon=\"one\",listener=\"x,daemon=\\\"q\\\"\"} 5\n\
            a_bytes_total{daemon=\"two\"} 6\n# HELP b B.\n# TYPE b gauge\n\
            b{daemon=\"one\"} 1\nb{daemon=\"two\"} 2\n# HELP build What.\n# TYPE build info\n\
            build_info{daemon=\"one\",version=\"1\",exported_daemon=\"echo-tcp\"} 1\n# EOF\n";
        assert_eq!(merged, expected);
    }

    #[test]
    fn the_older_format_calls_families_as_their_samples() {
        let merged = merge([("one", Some(ONE))].into_iter(), Format::Plain);
        let expected = "# HELP portyard_yard_up Whether the daemon has shown its metrics.\n\
            # TYPE portyard_yard_up gauge\nportyard_yard_up{daemon=\"one\"} 1\n\
            # HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\n\
            a_bytes_total{daemon=\"one\",listener=\"x,daemon=\\\"q\\\"\"} 5\n\
            # HELP b B.\n# TYPE b gauge\nb{daemon=\"one\"} 1\n\
            # HELP build_info What.\n# TYPE build_info gauge\n\
            build_info{daemon=\"one\",version=\"1\",exported_daemon=\"echo-tcp\"} 1\n";
        assert_eq!(merged, expected);
    }

    #[test]
    fn a_page_that_means_something_else_by_a_name_does_not_spoil_the_others() {
        let other = "# TYPE b counter\nb_total 7\n# TYPE c gauge\nc 1\nwild 5\n{} x\n# EOF\n";
        let all = [("one", Some(ONE)), ("two", Some(other))];
        let merged = merge(all.into_iter(), Format::OpenMetrics);
        assert!(
            !merged.contains("b_total") && !merged.contains("wild"),
            "{merged}"
        );
        assert!(merged.contains("c{daemon=\"two\"} 1"), "{merged}");
    }
}
