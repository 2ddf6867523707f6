//! The OpenAPI document, made of the table that routes and of the types that are told.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::config::YardOptions;
use super::table::{Guard, OPERATIONS, Operation, Parameter, Reply, Shape, Takes};
use super::view::{Daemon, Done, Keys, Problem, Yard};
use crate::routes::KeyScheme;

/// The document for a listener with these options.
pub fn document(options: &YardOptions) -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let described = describe(operation, options, &mut schemas);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_ascii_lowercase()] = described;
    }
    let mut components = json!({ "schemas": schemas.take_definitions(true) });
    if let Some(key) = &options.key {
        components["securitySchemes"] = json!({ "key": match key.scheme {
            KeyScheme::Bearer => json!({ "type": "http", "scheme": "bearer" }),
            KeyScheme::Basic => json!({ "type": "http", "scheme": "basic" }),
            KeyScheme::Hmac => json!({
                "type": "apiKey", "in": "header", "name": "Signature",
                "description": "A signature by RFC 9421 with hmac-sha256",
            }),
        }});
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Portyard: the yard",
            "summary": "What the daemons do, and what can be done to them",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": components,
    })
}

fn describe(operation: &Operation, options: &YardOptions, schemas: &mut SchemaGenerator) -> Value {
    let mut responses: Map<String, Value> = Map::new();
    for reply in operation.replies {
        responses.insert(reply.status.to_string(), answer(reply, schemas));
    }
    let guarded =
        operation.guard == Guard::Act || (operation.guard == Guard::Look && options.private);
    let problem = |about, schemas: &mut SchemaGenerator| {
        let shape = Shape::Problem;
        answer(
            &Reply {
                status: 0,
                about,
                shape,
            },
            schemas,
        )
    };
    if guarded && options.key.is_some() {
        responses.insert("401".into(), problem("A key must be shown.", schemas));
        responses.insert(
            "429".into(),
            problem("Too many wrong keys have come.", schemas),
        );
    }
    // Whatever the strict reading of requests has to say, for all paths alike.
    responses.insert(
        "default".into(),
        problem("The request is refused.", schemas),
    );
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": operation.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses,
    });
    if let Some(about) = operation.body {
        described["requestBody"] = json!({
            "description": about, "required": true,
            "content": { "application/json": { "schema": {} } },
        });
    }
    if guarded && options.key.is_some() {
        described["security"] = json!([{ "key": [] }]);
    }
    described
}

fn parameter(parameter: &Parameter) -> Value {
    let (required, schema) = match parameter.takes {
        Takes::Name => (
            true,
            json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" }),
        ),
        Takes::Worker => (
            true,
            json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
        ),
        Takes::Cursor => (
            false,
            json!({ "type": "string", "pattern": "^[0-9]{0,19}$" }),
        ),
        Takes::Text => (false, json!({ "type": "string" })),
        Takes::Needed => (true, json!({ "type": "string" })),
        Takes::UpTo(max) => (
            false,
            json!({ "type": "integer", "minimum": 1, "maximum": max }),
        ),
    };
    json!({
        "name": parameter.name, "in": parameter.place, "required": required,
        "description": parameter.about, "schema": schema,
    })
}

fn answer(reply: &Reply, schemas: &mut SchemaGenerator) -> Value {
    let (content_type, schema) = match reply.shape {
        Shape::Empty => return json!({ "description": reply.about }),
        Shape::Html => ("text/html", json!({ "type": "string" })),
        Shape::Events => ("text/event-stream", json!({ "type": "string" })),
        Shape::Metrics => {
            let text = json!({ "schema": { "type": "string" } });
            let forms = json!({ "application/openmetrics-text": text, "text/plain": text });
            return json!({ "description": reply.about, "content": forms });
        }
        Shape::Json => ("application/json", json!({ "type": "object" })),
        Shape::Yard => ("application/json", schema::<Yard>(schemas)),
        Shape::Daemon => ("application/json", schema::<Daemon>(schemas)),
        Shape::Done => ("application/json", schema::<Done>(schemas)),
        Shape::Keys => ("application/json", schema::<Keys>(schemas)),
        Shape::Problem => ("application/problem+json", schema::<Problem>(schemas)),
    };
    json!({ "description": reply.about, "content": { content_type: { "schema": schema } } })
}

fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_told_and_every_reference_leads_somewhere() {
        let document = document(&YardOptions::default());
        for operation in OPERATIONS {
            let told = &document["paths"][operation.path][operation.method.to_ascii_lowercase()];
            assert_eq!(told["operationId"], operation.id);
        }
        let text = document.to_string();
        let references: Vec<&str> = text
            .split("\"$ref\":\"#")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(references.len() > 10, "{text}");
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
