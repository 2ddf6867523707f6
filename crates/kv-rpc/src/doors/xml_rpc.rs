//! XML-RPC, as Python's `SimpleXMLRPCServer(allow_none=True)` speaks it, over connections that stay
//! open.

use std::sync::Arc;

use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::http::Head;
use portyard_wire::value::Value;
use portyard_wire::xmlrpc::{self, Caps, EncodeError, XmlError, encode_fault, encode_response};

use super::http::{Exchange, HttpDoor, Response};
use super::sayable::rescued;
use super::{Answer, Call, begin, gzip, in_order};
use crate::error::MethodError;
use crate::methods::{Arguments, Begun, Reply};
use crate::settings::{Faults, Options};
use crate::state::State;

/// The service.
pub struct XmlRpc(Arc<Door>);

struct Door {
    state: State,
    options: Options,
    caps: Caps,
}

/// How the bodies are coded.
#[derive(Clone, Copy)]
struct Plan {
    is_gzip: bool,
    takes_gzip: bool,
}

/// A request.
struct Asked {
    what: Result<Wanted, XmlError>,
    takes_gzip: bool,
}

/// What it wants.
enum Wanted {
    One(Call),
    /// The parameters of `system.multicall`.
    Many(Vec<Value>),
}

/// What a request came to.
struct Told {
    result: Result<Reply, Failed>,
    takes_gzip: bool,
}

/// What becomes a fault.
enum Failed {
    Xml(XmlError),
    Method(MethodError),
    Encode(EncodeError),
}

impl XmlRpc {
    /// Puts the door in front of the store.
    pub fn new(state: State, options: &Options) -> Self {
        let caps = Caps {
            bytes: options.max_request.bytes(),
            ..Caps::default()
        };
        Self(Arc::new(Door {
            state,
            options: options.clone(),
            caps,
        }))
    }
}

impl StreamService for XmlRpc {
    fn serve(&self, mut connection: Connection) -> Serving {
        let door = self.0.clone();
        Box::pin(async move {
            let cap = door.options.max_request.bytes();
            let exchange = Exchange::new(&mut connection, &*door, &door.state, cap, Vec::new());
            exchange.run().await.unwrap_or_else(Ended::from)
        })
    }
}

impl HttpDoor for Door {
    type Plan = Plan;
    type Asked = Asked;
    type Told = Told;

    fn plan(&self, head: &Head<'_>) -> Result<Plan, Response> {
        if head.method != "POST" {
            return Err(Response::text(
                501,
                format!("Unsupported method ('{}')\n", head.method),
            ));
        }
        if !PATHS.contains(&head.target) {
            return Err(Response::text(404, "No such page"));
        }
        let is_gzip = match head.field("content-encoding") {
            None => false,
            Some(coding) if coding.eq_ignore_ascii_case(b"identity") => false,
            Some(coding) if coding.eq_ignore_ascii_case(b"gzip") => true,
            Some(_) => return Err(Response::text(501, "the encoding is not supported\n")),
        };
        Ok(Plan {
            is_gzip,
            takes_gzip: head.lists("accept-encoding", "gzip"),
        })
    }

    fn read(&self, plan: Plan, body: &[u8]) -> Result<Asked, Response> {
        let expanded;
        let body = if plan.is_gzip {
            match gzip::expand(body, self.options.max_request.bytes()) {
                Some(bytes) => {
                    expanded = bytes;
                    &expanded[..]
                }
                None => {
                    return Err(Response {
                        is_bad_input: true,
                        ..Response::text(400, "error decoding gzip content\n")
                    });
                }
            }
        } else {
            body
        };
        let call = xmlrpc::decode_call(body, &self.caps);
        let what = call.map(|xmlrpc::Call { method, params }| {
            if method == MULTICALL {
                Wanted::Many(params)
            } else {
                Wanted::One(Call {
                    method,
                    arguments: Arguments::Positional(params),
                })
            }
        });
        let takes_gzip = plan.takes_gzip;
        Ok(Asked { what, takes_gzip })
    }

    fn may_follow(&self, asked: &Asked) -> bool {
        matches!(&asked.what, Ok(Wanted::One(call)) if call.writes())
    }

    fn begin(&self, asked: Asked) -> Answer<'_, Told> {
        let Asked { what, takes_gzip } = asked;
        let told = move |result: Result<Reply, MethodError>| Told {
            result: result.map_err(Failed::Method),
            takes_gzip,
        };
        let call = match what {
            Ok(Wanted::One(call)) => call,
            Ok(Wanted::Many(params)) => {
                let many = async move { told(self.multicall(params).await.map(Reply::Owned)) };
                return Answer::Waits(Box::pin(many));
            }
            Err(error) => {
                return Answer::Done(Told {
                    result: Err(Failed::Xml(error)),
                    takes_gzip,
                });
            }
        };
        let lists_methods = call.method == "system.listMethods";
        match begin(&self.state, self.options.read_only, call, &[]) {
            Ok(Begun::Done(mut reply)) => {
                if lists_methods && let Reply::Owned(Value::List(names)) = &mut reply {
                    // The one method that only this door has.
                    let is_before =
                        |name: &Value| matches!(name, Value::String(name) if **name < *MULTICALL);
                    names.insert(names.partition_point(is_before), MULTICALL.into());
                }
                Answer::Done(told(Ok(reply)))
            }
            Ok(Begun::Waits(reply)) => Answer::Waits(Box::pin(async move { told(reply.await) })),
            Err(error) => Answer::Done(told(Err(error))),
        }
    }

    fn tell(&self, told: Told) -> Response {
        let options = xmlrpc::Options {
            emit_i8: self.options.emit_i8,
        };
        let mut out = Vec::with_capacity(SHORT_ANSWER);
        let mut is_bad_input = false;
        let written = told.result.and_then(|reply| {
            let said = encode_response(reply.value(), options, &mut out);
            let why_not = |value: &Value| {
                let said = encode_response(value, options, &mut Vec::new());
                said.err().map(|error| error.to_string())
            };
            match said {
                Ok(()) => Ok(()),
                Err(error) => match rescued(&reply, why_not) {
                    Some(rescue) => encode_response(&rescue, options, &mut out),
                    None => Err(error),
                },
            }
            .map_err(Failed::Encode)
        });
        if let Err(failed) = written {
            is_bad_input = matches!(failed, Failed::Xml(_));
            self.fault(&failed, &mut out);
        }
        let shrunk = (told.takes_gzip && out.len() > GZIP_FROM)
            .then(|| gzip::shrink(&out))
            .flatten();
        Response {
            status: 200,
            content_type: "text/xml",
            more: if shrunk.is_some() {
                "Content-Encoding: gzip\r\n"
            } else {
                ""
            },
            body: Some(shrunk.unwrap_or(out)),
            is_bad_input,
        }
    }
}

impl Door {
    async fn calls(&self, calls: Vec<Call>) -> Vec<Result<Reply, MethodError>> {
        in_order(&self.state, self.options.read_only, calls).await
    }

    /// A list of calls; each comes to a list of its result, or to a fault as a struct.
    async fn multicall(&self, params: Vec<Value>) -> Result<Value, MethodError> {
        let [Value::List(wanted)] =
            <[Value; 1]>::try_from(params).map_err(|_| multicall_arity())?
        else {
            return Err(multicall_arity());
        };
        let calls = wanted
            .into_iter()
            .map(one_of_many)
            .collect::<Result<Vec<Call>, _>>()?;
        let results = self
            .calls(calls)
            .await
            .into_iter()
            .map(|result| match result {
                Ok(reply) => Value::List(vec![reply.value().clone()]),
                Err(error) => {
                    let (code, text) = self.fault_of(&error);
                    let pairs = [
                        ("faultCode", Value::Int(code.into())),
                        ("faultString", text.as_str().into()),
                    ];
                    Value::Map(
                        pairs
                            .into_iter()
                            .map(|(key, value)| (key.into(), value))
                            .collect(),
                    )
                }
            });
        Ok(Value::List(results.collect()))
    }

    fn fault(&self, failed: &Failed, out: &mut Vec<u8>) {
        let (code, text) = match (failed, self.options.faults) {
            (Failed::Method(error), _) => self.fault_of(error),
            (Failed::Xml(error), Faults::Python) => (1, error.python_text()),
            (Failed::Xml(error), Faults::Interop) => (error.interop_code(), error.to_string()),
            (Failed::Encode(error), Faults::Python) => (1, error.python_text()),
            (Failed::Encode(error), Faults::Interop) => (-32_603, error.to_string()),
        };
        encode_fault(code, &text, out);
    }

    fn fault_of(&self, error: &MethodError) -> (i32, String) {
        match self.options.faults {
            Faults::Python => (1, error.python_text()),
            Faults::Interop => (error.code(), error.to_string()),
        }
    }
}

fn multicall_arity() -> MethodError {
    MethodError::Type("system.multicall takes one list of calls".into())
}

fn one_of_many(value: Value) -> Result<Call, MethodError> {
    let Value::Map(pairs) = value else {
        return Err(MethodError::Type(
            "a call of system.multicall is a struct".into(),
        ));
    };
    let (mut method, mut params) = (None, None);
    for (key, value) in pairs {
        match (key, value) {
            (Value::String(key), Value::String(name)) if key == "methodName" => method = Some(name),
            (Value::String(key), Value::List(list)) if key == "params" => params = Some(list),
            _ => {}
        }
    }
    let missing = |name: &str| MethodError::Missing { key: name.into() };
    Ok(Call {
        method: method.ok_or_else(|| missing("methodName"))?,
        arguments: Arguments::Positional(params.ok_or_else(|| missing("params"))?),
    })
}

const MULTICALL: &str = "system.multicall";
/// Those of Python's server that a client uses.
const PATHS: [&str; 3] = ["/", "/RPC2", "/pydoc.css"];
/// As Python's server: below that gzip is not worth it.
const GZIP_FROM: usize = 1400;
/// Room for most answers.
const SHORT_ANSWER: usize = 512;
