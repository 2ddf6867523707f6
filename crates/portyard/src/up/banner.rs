//! What listens where, and what to type to use it.

use portyard_core::endpoint::Endpoint;

use super::sockets::{Berth, Passed};
use crate::catalog;
use crate::out::Out;
use crate::stop::Stop;

/// Everything that is told when the yard is open.
#[derive(Debug)]
pub struct Board {
    rows: Vec<Row>,
    /// Where the page is that shows all daemons.
    page: Option<Endpoint>,
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    daemon: &'static str,
    name: String,
    endpoint: Endpoint,
    try_it: String,
}

impl Board {
    /// What is told of these daemons.
    pub fn of(berths: &[Berth]) -> Self {
        let sockets = berths
            .iter()
            .flat_map(|berth| berth.sockets.iter().map(|passed| (berth.daemon, passed)));
        let page = sockets
            .clone()
            .find(|(daemon, passed)| *daemon == "rest-api" && passed.service == "yard");
        Self {
            page: page.map(|(_, passed)| passed.bound.endpoint.clone()),
            rows: sockets
                .map(|(daemon, passed)| Row::of(daemon, passed))
                .collect(),
        }
    }

    /// Prints it to standard output. The yard stays open if nobody reads it.
    pub fn print(&self) {
        let us = std::env::args().next().unwrap_or_default();
        let _: Result<(), Stop> = self.write(&mut Out::new(), &us);
    }

    fn write(&self, out: &mut Out, us: &str) -> Result<(), Stop> {
        out.line("The yard is open. ^C drains and closes it.\n")?;
        for line in table(&self.rows, us) {
            out.line(line)?;
        }
        if let Some(page) = self.page.as_ref().and_then(page_at) {
            out.line(format!("\nSee all of it in a browser: {page}"))?;
        }
        out.line("")?;
        out.flush()
    }
}

impl Row {
    fn of(daemon: &'static str, passed: &Passed) -> Self {
        let endpoint = passed.bound.endpoint.clone();
        Self {
            daemon,
            name: passed.name.clone(),
            try_it: catalog::try_line(daemon, &passed.service, &endpoint).unwrap_or_default(),
            endpoint,
        }
    }
}

/// The address of service yard's page; browsers open none on a Unix socket.
fn page_at(endpoint: &Endpoint) -> Option<String> {
    match endpoint {
        Endpoint::Tcp(at) => Some(format!("http://{at}/yard")),
        _ => None,
    }
}

fn table(rows: &[Row], us: &str) -> Vec<String> {
    let endpoints: Vec<String> = rows.iter().map(|row| row.endpoint.to_string()).collect();
    let width =
        |least: usize, texts: &mut dyn Iterator<Item = usize>| texts.fold(least, usize::max);
    let daemons = width(6, &mut rows.iter().map(|row| row.daemon.len()));
    let names = width(7, &mut rows.iter().map(|row| row.name.len()));
    let places = width(10, &mut endpoints.iter().map(String::len));
    let line = |daemon: &str, name: &str, place: &str, try_it: &str| {
        let line = format!("{daemon:<daemons$}  {name:<names$}  {place:<places$}  {try_it}");
        line.trim_end().to_owned()
    };
    let mut lines = vec![line("DAEMON", "SERVICE", "LISTENS ON", "TO USE IT, TYPE")];
    for (row, endpoint) in rows.iter().zip(&endpoints) {
        let try_it = as_typed(&row.try_it, us);
        lines.push(line(row.daemon, &row.name, endpoint, &try_it));
    }
    lines
}

/// Our own program as it was called, when that was by a path: then it may not be found by name.
fn as_typed(try_it: &str, us: &str) -> String {
    if us.contains('/') && !us.contains(char::is_whitespace) {
        try_it.replace("portyard ", &format!("{us} "))
    } else {
        try_it.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_can_be_typed() {
        let row = |name: &str, port| {
            let endpoint = Endpoint::tcp_loopback(port);
            Row {
                daemon: "echo-tcp",
                name: name.into(),
                try_it: catalog::try_line("echo-tcp", name, &endpoint).unwrap_or_default(),
                endpoint,
            }
        };
        assert_eq!(
            table(
                &[row("echo", 7), row("unknown-one", 10_000)],
                "target/release/portyard"
            ),
            [
                "DAEMON    SERVICE      LISTENS ON             TO USE IT, TYPE",
                "echo-tcp  echo         tcp://127.0.0.1:7      target/release/portyard echo tcp://127.0.0.1:7",
                "echo-tcp  unknown-one  tcp://127.0.0.1:10000",
            ]
        );
        assert_eq!(as_typed("portyard echo x", "portyard"), "portyard echo x");
        let page = page_at(&Endpoint::tcp_loopback(18082));
        assert_eq!(page.as_deref(), Some("http://127.0.0.1:18082/yard"));
    }
}
