//! XML-RPC, as Python's `SimpleXMLRPCServer(allow_none=True)` speaks it, over connections that stay
//! open.

use std::sync::Arc;

use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::http::Head;
use portyard_wire::value::Value;
use portyard_wire::xmlrpc::{self, Caps, EncodeError, XmlError, encode_fault, encode_response};

use super::http::{Exchange, HttpDoor, Response};
use super::sayable::rescued;
use super::{Call, gzip, in_order};
use crate::error::MethodError;
use crate::methods::{Arguments, Reply};
use crate::settings::{Faults, Options};
use crate::state::State;

/// The service.
pub struct XmlRpc(Arc<Door>);

struct Door {
    state: State,
    options: Options,
    caps: Caps,
}

/// What a request asks of its answer.
struct Plan {
    is_gzip: bool,
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

    async fn answer(&self, plan: Plan, body: &[u8]) -> Response {
        let expanded;
        let body = if plan.is_gzip {
            match gzip::expand(body, self.options.max_request.bytes()) {
                Some(bytes) => {
                    expanded = bytes;
                    &expanded[..]
                }
                None => {
                    return Response {
                        is_bad_input: true,
                        ..Response::text(400, "error decoding gzip content\n")
                    };
                }
            }
        } else {
            body
        };
        let mut out = Vec::new();
        let mut is_bad_input = false;
        if let Err(failed) = self.call(body, &mut out).await {
            is_bad_input = matches!(failed, Failed::Xml(_));
            out.clear();
            self.fault(&failed, &mut out);
        }
        let shrunk = (plan.takes_gzip && out.len() > GZIP_FROM)
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
    async fn call(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        let xmlrpc::Call { method, params } =
            xmlrpc::decode_call(body, &self.caps).map_err(Failed::Xml)?;
        let options = xmlrpc::Options {
            emit_i8: self.options.emit_i8,
        };
        if method == MULTICALL {
            let results = self.multicall(params).await.map_err(Failed::Method)?;
            return encode_response(&results, options, out).map_err(Failed::Encode);
        }
        let lists_methods = method == "system.listMethods";
        let call = Call {
            method,
            arguments: Arguments::Positional(params),
        };
        let reply = self.calls(vec![call]).await.pop();
        let mut reply = reply
            .unwrap_or(Ok(Reply::Owned(Value::Nil)))
            .map_err(Failed::Method)?;
        if lists_methods && let Reply::Owned(Value::List(names)) = &mut reply {
            // The one method that only this door has.
            let is_before =
                |name: &Value| matches!(name, Value::String(name) if **name < *MULTICALL);
            names.insert(names.partition_point(is_before), MULTICALL.into());
        }
        let said = encode_response(reply.value(), options, out);
        let why_not = |value: &Value| {
            let said = encode_response(value, options, &mut Vec::new());
            said.err().map(|error| error.to_string())
        };
        match said {
            Ok(()) => Ok(()),
            Err(error) => match rescued(&reply, why_not) {
                Some(rescue) => encode_response(&rescue, options, out).map_err(Failed::Encode),
                None => Err(Failed::Encode(error)),
            },
        }
    }

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
