//! The table of everything that service `yard` answers. It routes, and the OpenAPI document is made of
//! it, so that neither can tell of what the other has not.

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To the page.
    Home,
    /// The page.
    Page,
    /// All daemons.
    Yard,
    /// One daemon.
    Daemon,
    /// What changes, as it does.
    Events,
    /// An action: its name. With a second parameter it is about a worker.
    Act(&'static str),
    /// The keys of a kv-rpc.
    Keys,
    /// A value of a kv-rpc.
    Value,
    /// Changes a value of a kv-rpc: `set` or `delete`.
    Change(&'static str),
    /// The metrics of all.
    Metrics,
    /// The OpenAPI document.
    Document,
}

/// One row: a method of a path.
#[derive(Debug)]
pub struct Operation {
    /// GET, POST, PUT or DELETE.
    pub method: &'static str,
    /// The pattern of its path.
    pub path: &'static str,
    /// What answers.
    pub call: Call,
    /// Its name for programs.
    pub id: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Who may.
    pub guard: Guard,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// What its body means, if it takes one: any JSON.
    pub body: Option<&'static str>,
    /// Its answers.
    pub replies: &'static [Reply],
}

/// Who may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Whoever reaches the listener: it tells nothing of the daemons.
    None,
    /// Who may look: everybody, or where the listener is private who may act.
    Look,
    /// Who may act.
    Act,
}

/// A parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// `path`, `query` or `header`.
    pub place: &'static str,
    /// What it means.
    pub about: &'static str,
    /// What it takes.
    pub takes: Takes,
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// The name of a daemon.
    Name,
    /// The name of a worker or a pool.
    Worker,
    /// Any text.
    Text,
    /// What an answer before has given, or nothing.
    Cursor,
    /// Any text, and it must be there.
    Needed,
    /// A number from 1 to this.
    UpTo(u64),
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// What it means.
    pub about: &'static str,
    /// What it looks like.
    pub shape: Shape,
}

/// What an answer looks like.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// No body.
    Empty,
    /// A page.
    Html,
    /// [`super::view::Yard`].
    Yard,
    /// [`super::view::Daemon`].
    Daemon,
    /// Server-sent events.
    Events,
    /// [`super::view::Done`].
    Done,
    /// [`super::view::Keys`].
    Keys,
    /// Any JSON.
    Json,
    /// OpenMetrics.
    Metrics,
    /// [`super::view::Problem`].
    Problem,
}

/// The table.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: "GET",
        path: "/",
        call: Call::Home,
        id: "home",
        summary: "To the page",
        guard: Guard::None,
        parameters: &[],
        body: None,
        replies: &[Reply {
            status: 302,
            about: "The page is at /yard.",
            shape: Shape::Empty,
        }],
    },
    Operation {
        method: "GET",
        path: "/yard",
        call: Call::Page,
        id: "page",
        summary: "The page for people",
        guard: Guard::None,
        parameters: &[],
        body: None,
        replies: &[Reply {
            status: 200,
            about: "A page without anything from elsewhere; it asks this API.",
            shape: Shape::Html,
        }],
    },
    Operation {
        method: "GET",
        path: "/api/v1/yard",
        call: Call::Yard,
        id: "yard",
        summary: "All daemons: health, version, listeners, connections, rates, limits, certificates",
        guard: Guard::Look,
        parameters: &[],
        body: None,
        replies: &[Reply {
            status: 200,
            about: "All daemons, as of when each was last asked.",
            shape: Shape::Yard,
        }],
    },
    Operation {
        method: "GET",
        path: "/api/v1/yard/{daemon}",
        call: Call::Daemon,
        id: "daemon",
        summary: "One daemon",
        guard: Guard::Look,
        parameters: &[DAEMON],
        body: None,
        replies: &[
            Reply {
                status: 200,
                about: "The daemon, as of when it was last asked.",
                shape: Shape::Daemon,
            },
            NO_DAEMON,
        ],
    },
    Operation {
        method: "GET",
        path: "/api/v1/events",
        call: Call::Events,
        id: "events",
        summary: "What changes, as it does",
        guard: Guard::Look,
        parameters: &[],
        body: None,
        replies: &[
            Reply {
                status: 200,
                about: "Server-sent events: `yard` (all daemons, first and after a reload), `daemon` \
                        (one that was asked), `change` (of state), `action` (one that was taken).",
                shape: Shape::Events,
            },
            BUSY,
        ],
    },
    act(
        "/api/v1/yard/{daemon}/reload",
        ("reload", "reload"),
        "Has a daemon read its configuration again",
        &[DAEMON],
    ),
    act(
        "/api/v1/yard/{daemon}/drain",
        ("drain", "drain"),
        "Has a daemon finish what runs and leave",
        &[DAEMON],
    ),
    act(
        "/api/v1/yard/{daemon}/workers/{worker}/drain",
        ("drain-workers", "drain"),
        "Has workers of an fd-broker finish what they have and take nothing new",
        &[DAEMON, WORKER],
    ),
    act(
        "/api/v1/yard/{daemon}/workers/{worker}/resume",
        ("resume-workers", "resume"),
        "Has workers of an fd-broker take connections again",
        &[DAEMON, WORKER],
    ),
    Operation {
        method: "GET",
        path: "/api/v1/yard/{daemon}/keys",
        call: Call::Keys,
        id: "keys",
        summary: "The keys of a kv-rpc and how their values begin",
        guard: Guard::Look,
        parameters: &[
            DAEMON,
            Parameter {
                name: "prefix",
                place: "query",
                about: "Only keys that begin so.",
                takes: Takes::Text,
            },
            Parameter {
                name: "cursor",
                place: "query",
                about: "Where the page begins: the `cursor` of the page before.",
                takes: Takes::Cursor,
            },
            Parameter {
                name: "limit",
                place: "query",
                about: "How many.",
                takes: Takes::UpTo(super::keys::LIMIT_MAX),
            },
        ],
        body: None,
        replies: &[
            Reply {
                status: 200,
                about: "A page of keys.",
                shape: Shape::Keys,
            },
            BAD,
            NO_DAEMON,
            BEHIND,
        ],
    },
    Operation {
        method: "GET",
        path: "/api/v1/yard/{daemon}/value",
        call: Call::Value,
        id: "value",
        summary: "A value of a kv-rpc, with its revision and end",
        guard: Guard::Look,
        parameters: &[DAEMON, KEY],
        body: None,
        replies: &[
            Reply {
                status: 200,
                about: "What kv-rpc's method `entry` returns; the field ETag tells it from other values.",
                shape: Shape::Json,
            },
            BAD,
            NO_DAEMON,
            BEHIND,
        ],
    },
    change(
        "PUT",
        ("set-value", "set"),
        "Sets a value of a kv-rpc",
        &[DAEMON, KEY, IF_MATCH, IF_NONE_MATCH],
        Some("The value."),
        &[
            Reply {
                status: 201,
                about: "It is set, where nothing was.",
                shape: Shape::Empty,
            },
            CHANGED,
            BAD,
            OFF,
            NO_DAEMON,
            SUPPOSED,
            Reply {
                status: 415,
                about: "The value is no JSON.",
                shape: Shape::Problem,
            },
            BEHIND,
        ],
    ),
    change(
        "DELETE",
        ("delete-value", "delete"),
        "Deletes a key of a kv-rpc",
        &[DAEMON, KEY, IF_MATCH],
        None,
        &[CHANGED, BAD, OFF, NO_DAEMON, SUPPOSED, BEHIND],
    ),
    Operation {
        method: "GET",
        path: "/metrics",
        call: Call::Metrics,
        id: "metrics",
        summary: "The metrics of all daemons, each sample with the label `daemon`",
        guard: Guard::Look,
        parameters: &[],
        body: None,
        replies: &[
            Reply {
                status: 200,
                about: "In OpenMetrics' text format, or in Prometheus' own for who accepts only that.",
                shape: Shape::Metrics,
            },
            BUSY,
        ],
    },
    Operation {
        method: "GET",
        path: "/openapi.json",
        call: Call::Document,
        id: "document",
        summary: "This document",
        guard: Guard::None,
        parameters: &[],
        body: None,
        replies: &[Reply {
            status: 200,
            about: "OpenAPI 3.1.",
            shape: Shape::Json,
        }],
    },
];

const fn act(
    path: &'static str,
    (id, action): (&'static str, &'static str),
    summary: &'static str,
    parameters: &'static [Parameter],
) -> Operation {
    Operation {
        method: "POST",
        path,
        call: Call::Act(action),
        id,
        summary,
        guard: Guard::Act,
        parameters,
        body: None,
        replies: &[
            Reply {
                status: 200,
                about: "It is done; for `drain`, it has begun.",
                shape: Shape::Done,
            },
            Reply {
                status: 403,
                about: "Actions are off, here or in the daemon.",
                shape: Shape::Problem,
            },
            NO_DAEMON,
            Reply {
                status: 409,
                about: "The daemon has refused, and says why.",
                shape: Shape::Problem,
            },
            BEHIND,
        ],
    }
}

const fn change(
    method: &'static str,
    (id, action): (&'static str, &'static str),
    summary: &'static str,
    parameters: &'static [Parameter],
    body: Option<&'static str>,
    replies: &'static [Reply],
) -> Operation {
    Operation {
        method,
        path: "/api/v1/yard/{daemon}/value",
        call: Call::Change(action),
        id,
        summary,
        guard: Guard::Act,
        parameters,
        body,
        replies,
    }
}

const DAEMON: Parameter = Parameter {
    name: "daemon",
    place: "path",
    about: "What the daemon is called in [[yard]].",
    takes: Takes::Name,
};
const WORKER: Parameter = Parameter {
    name: "worker",
    place: "path",
    about: "The name of a worker, which several may have, or of a pool, which stands for all of its workers.",
    takes: Takes::Worker,
};
const KEY: Parameter = Parameter {
    name: "key",
    place: "query",
    about: "The key.",
    takes: Takes::Needed,
};
const IF_MATCH: Parameter = Parameter {
    name: "If-Match",
    place: "header",
    about: "Only if the value still has this tag: the ETag with which it was told.",
    takes: Takes::Text,
};
const IF_NONE_MATCH: Parameter = Parameter {
    name: "If-None-Match",
    place: "header",
    about: "With *: only if nothing is there.",
    takes: Takes::Text,
};
const CHANGED: Reply = Reply {
    status: 204,
    about: "It is done.",
    shape: Shape::Empty,
};
const SUPPOSED: Reply = Reply {
    status: 412,
    about: "What is there is not what the condition supposes.",
    shape: Shape::Problem,
};
const OFF: Reply = Reply {
    status: 403,
    about: "Actions are off here.",
    shape: Shape::Problem,
};
const NO_DAEMON: Reply = Reply {
    status: 404,
    about: "There is no such daemon, or it has nothing of the kind.",
    shape: Shape::Problem,
};
const BAD: Reply = Reply {
    status: 400,
    about: "A parameter is wrong.",
    shape: Shape::Problem,
};
const BUSY: Reply = Reply {
    status: 503,
    about: "Too many ask for this at a time.",
    shape: Shape::Problem,
};
const BEHIND: Reply = Reply {
    status: 502,
    about: "The daemon does not answer.",
    shape: Shape::Problem,
};
