//! The doors: each protocol in front of the store, written against `portyard_core::serve::Connection`.

mod gzip;
mod http;
pub mod json_rpc;
pub mod python_rpc;
mod sayable;
mod subscriptions;
pub mod xml_rpc;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

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

/// What a request comes to.
pub enum Answer<'a, T> {
    /// It is known.
    Done(T),
    /// It waits: for the disk, or for time to pass.
    Waits(Later<'a, T>),
}

/// What will be known.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What it has come to, if that is known by now.
pub async fn by_now<T>(later: &mut Later<'_, T>) -> Option<T> {
    poll_fn(|cx| {
        Poll::Ready(match later.as_mut().poll(cx) {
            Poll::Ready(known) => Some(known),
            Poll::Pending => None,
        })
    })
    .await
}

impl Call {
    /// Whether it can change something. Such a call may begin while those before it wait for the disk,
    /// as the store keeps the order of writes; any other one must see what they did.
    pub fn writes(&self) -> bool {
        methods::find(&self.method).is_some_and(|method| method.writes)
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
        if !waiting.is_empty() && !call.writes() {
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

type Waiting = Later<'static, Result<Reply, MethodError>>;

async fn settle(
    results: &mut [Option<Result<Reply, MethodError>>],
    waiting: &mut Vec<(usize, Waiting)>,
) {
    for (at, reply) in waiting.drain(..) {
        results[at] = Some(reply.await);
    }
}

/// Begins one call. What it changes is queued when this returns.
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

/// How many requests of a connection may be under way: more would let one client fill the queue of
/// the store.
const UNDER_WAY_MAX: usize = 256;
/// Replies are sent when they are so long together, though more requests have come.
const REPLIES_MAX: usize = 64 << 10;
