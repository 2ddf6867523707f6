//! Events in a protocol that cannot say all values.
//!
//! A watch must get past a value that its protocol cannot say, as others have set it: such a key or
//! value is left out, and a member `unsaid` of the event tells why.

use portyard_wire::value::Value;

use crate::methods::Reply;

/// The reply without what cannot be said; `None` if it does not tell of events, and is to fail.
/// `why_not` says why a value cannot be said, if it cannot.
pub fn rescued(reply: &Reply, why_not: impl Fn(&Value) -> Option<String>) -> Option<Value> {
    let Reply::Events(Value::Map(members)) = reply else {
        return None;
    };
    let members = members
        .iter()
        .map(|(name, value)| (name.clone(), without(value, &why_not)));
    Some(Value::Map(members.collect()))
}

/// A list of events without what cannot be said of them; anything else as it is.
pub fn without(value: &Value, why_not: &impl Fn(&Value) -> Option<String>) -> Value {
    match value {
        Value::List(events) => {
            let events = events.iter().map(|event| one_without(event, why_not));
            Value::List(events.collect())
        }
        other => other.clone(),
    }
}

fn one_without(event: &Value, why_not: &impl Fn(&Value) -> Option<String>) -> Value {
    let Value::Map(members) = event else {
        return event.clone();
    };
    let mut unsaid = Vec::new();
    let mut kept: Vec<(Value, Value)> = Vec::new();
    for (name, value) in members {
        match (name, why_not(value)) {
            (Value::String(name), Some(why)) => unsaid.push(format!("{name}: {why}")),
            _ => kept.push((name.clone(), value.clone())),
        }
    }
    if !unsaid.is_empty() {
        kept.push(("unsaid".into(), Value::String(unsaid.join("; "))));
    }
    Value::Map(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portyard_wire::jsonrpc::json;

    #[test]
    fn an_event_that_cannot_be_said_is_told_without_what_cannot() {
        let event = |value: Value| {
            Value::Map(vec![
                ("type".into(), "set".into()),
                ("key".into(), "k".into()),
                ("value".into(), value),
            ])
        };
        let events = vec![event(Value::Int(1)), event(Value::Double(f64::NAN))];
        let told = Value::Map(vec![
            ("events".into(), Value::List(events)),
            ("next".into(), Value::Int(3)),
        ]);
        let encode = |value: &Value| {
            let mut out = Vec::new();
            json::encode(value, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        let why_not = |value: &Value| encode(value).err().map(|error| error.to_string());
        let rescue = rescued(&Reply::Events(told.clone()), why_not).unwrap();
        let text = encode(&rescue).unwrap();
        let said = r#"{"events":[{"type":"set","key":"k","value":1},{"type":"set","key":"k","unsaid":"value: "#;
        assert!(text.starts_with(said), "{text}");
        assert!(text.ends_with(r#""}],"next":3}"#), "{text}");
        // Whoever asks for a value itself is told by an error.
        assert_eq!(rescued(&Reply::Owned(told), why_not), None);
    }
}
