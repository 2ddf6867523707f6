//! What came of the attacks.

use std::fmt::Write as _;

use crate::{CONTROLS, TRIES};

/// One attack.
pub struct Row {
    pub attack: String,
    /// How often it passed against each CPython; none where CPython has no such dialogue.
    pub cpython: Vec<usize>,
    pub cpython_falls: bool,
    /// How often it passed against ours.
    pub ours: usize,
}

#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    pub fn add(&mut self, row: Row) {
        self.0.push(row);
    }

    /// Prints the table, and panics unless nothing passed against ours and everything against
    /// CPython that must.
    pub fn judge(&self) {
        let mut text = String::from("attack | tries | CPython passed | ours passed\n");
        for row in &self.0 {
            let passed: usize = row.cpython.iter().sum();
            let cpython = match row.cpython.len() * CONTROLS {
                0 => "-".into(),
                tries => format!("{passed} of {tries}"),
            };
            let _ = writeln!(text, "{} | {TRIES} | {cpython} | {}", row.attack, row.ours);
        }
        println!("{text}");
        assert!(!self.0.is_empty(), "no attack was made");
        for row in &self.0 {
            let Row { attack, ours, .. } = row;
            assert_eq!(*ours, 0, "{attack}: passed against ours\n{text}");
            let expected = if row.cpython_falls { CONTROLS } else { 0 };
            assert!(
                row.cpython.iter().all(|passed| *passed == expected),
                "{attack}: {:?} passed against the CPythons instead of {expected}\n{text}",
                row.cpython
            );
        }
    }
}
