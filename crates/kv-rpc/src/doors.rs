//! The doors: each protocol in front of the store, written against `portyard_core::serve::Connection`.

mod gzip;
mod http;
pub mod json_rpc;
pub mod python_rpc;
mod sayable;
mod subscriptions;
pub mod xml_rpc;

use portyard_wire::value::Value;

use crate::error::MethodError;
use crate::methods::{self, Arguments, Begun, METHODS, Reply, Signature};
use crate::state::State;

/// A call as a door delivers it.
pub struct Call {
    /// The method's name, which the peer chose.
    pub method: String,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Methods that only one door has.
pub trait OwnMethods {
    /// How they are called.
    fn signatures(&self) -> &'static [Signature];

    /// Makes a call if it is of one of them.
    fn call(&mut self, state: &State, call: &mut Call) -> Option<Result<Reply, MethodError>>;
}

/// None.
struct NoOwn;

impl OwnMethods for NoOwn {
    fn signatures(&self) -> &'static [Signature] {
        &[]
    }

    fn call(&mut self, _: &State, _: &mut Call) -> Option<Result<Reply, MethodError>> {
        None
    }
}

/// Makes calls in their order, so that each sees what those before it did. Writes that follow each
/// other wait for the disk together.
pub async fn in_order(
    state: &State,
    read_only: bool,
    calls: Vec<Call>,
) -> Vec<Result<Reply, MethodError>> {
    in_order_with(state, read_only, calls, &mut NoOwn).await
}

/// The same, of a door with methods of its own.
pub async fn in_order_with(
    state: &State,
    read_only: bool,
    calls: Vec<Call>,
    own: &mut impl OwnMethods,
) -> Vec<Result<Reply, MethodError>> {
    let mut results = Vec::with_capacity(calls.len());
    let mut waiting = Vec::new();
    for mut call in calls {
        let is_write = methods::find(&call.method).is_some_and(|method| method.writes);
        if !is_write {
            settle(&mut results, &mut waiting).await;
        }
        if let Some(result) = own.call(state, &mut call) {
            results.push(Some(result));
            continue;
        }
        match begin(state, read_only, call, own.signatures()) {
            Ok(Begun::Done(reply)) => results.push(Some(Ok(reply))),
            Ok(Begun::Waits(reply)) => {
                waiting.push((results.len(), reply));
                results.push(None);
            }
            Err(error) => results.push(Some(Err(error))),
        }
    }
    settle(&mut results, &mut waiting).await;
    // Every place that was left open has been settled.
    results.into_iter().flatten().collect()
}

type Waiting = std::pin::Pin<Box<dyn Future<Output = Result<Reply, MethodError>>>>;

async fn settle(
    results: &mut [Option<Result<Reply, MethodError>>],
    waiting: &mut Vec<(usize, Waiting)>,
) {
    for (at, reply) in waiting.drain(..) {
        results[at] = Some(reply.await);
    }
}

/// Begins one call.
fn begin(
    state: &State,
    read_only: bool,
    call: Call,
    own: &[Signature],
) -> Result<Begun, MethodError> {
    let Call { method, arguments } = call;
    if method.starts_with("system.") {
        return introspect(&method, arguments, own).map(Into::into);
    }
    if read_only && methods::find(&method).is_some_and(|method| method.writes) {
        return Err(MethodError::ReadOnly(method));
    }
    methods::begin(state.opened()?, &method, arguments)
}

fn signatures(own: &[Signature]) -> impl Iterator<Item = &Signature> {
    METHODS.iter().map(|method| &method.signature).chain(own)
}

/// `system.listMethods`, `system.methodHelp`, `system.methodSignature`, as Python's server has them.
fn introspect(name: &str, arguments: Arguments, own: &[Signature]) -> Result<Value, MethodError> {
    let unknown = || MethodError::NoSuchMethod(name.into());
    let Arguments::Positional(arguments) = arguments else {
        return Err(unknown());
    };
    let of = |value: Option<&Value>| match value {
        Some(Value::String(name)) => Some(name.clone()),
        _ => None,
    };
    match (name, arguments.len()) {
        ("system.listMethods", 0) => {
            let ours = [
                "system.listMethods",
                "system.methodHelp",
                "system.methodSignature",
            ];
            let mut names: Vec<&str> = signatures(own)
                .map(|signature| signature.name)
                .chain(ours)
                .collect();
            names.sort_unstable();
            Ok(Value::List(names.into_iter().map(Value::from).collect()))
        }
        ("system.methodHelp", 1) => {
            let wanted = of(arguments.first());
            let mut known = signatures(own);
            let method = known.find(|method| wanted.as_deref() == Some(method.name));
            Ok(method.map_or("", |method| method.help).into())
        }
        // What a key or a value is depends on the call, so there is no signature to give.
        ("system.methodSignature", 1) => Ok("signatures not supported".into()),
        ("system.listMethods" | "system.methodHelp" | "system.methodSignature", _) => Err(
            MethodError::Type(format!("{name}: wrong number of arguments")),
        ),
        _ => Err(unknown()),
    }
}
