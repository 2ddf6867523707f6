//! The programs of the yard: their names, how each starts, and their command lines.

use std::process::ExitCode;

/// One program.
pub struct Program {
    /// Its name, that of its file.
    pub name: &'static str,
    /// The whole of it. Must be the first thing that a process does.
    pub main: fn() -> ExitCode,
    /// Its command line, for man pages and completions.
    pub command_line: fn() -> clap::Command,
}

/// All programs, in the order in which the documents name them.
pub const PROGRAMS: [Program; 6] = [
    Program {
        name: "echo-tcp",
        main: echo_tcp::main,
        command_line: echo_tcp::command_line,
    },
    Program {
        name: "time-udp",
        main: time_udp::main,
        command_line: time_udp::command_line,
    },
    Program {
        name: "kv-rpc",
        main: kv_rpc::main,
        command_line: kv_rpc::command_line,
    },
    Program {
        name: "rest-api",
        main: rest_api::main,
        command_line: rest_api::command_line,
    },
    Program {
        name: "fd-broker",
        main: fd_broker::main,
        command_line: fd_broker::command_line,
    },
    Program {
        name: "portyard",
        main: portyard::main,
        command_line: portyard::command_line,
    },
];
