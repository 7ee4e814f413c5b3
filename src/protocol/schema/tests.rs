use super::super::parse;
use super::*;

/// The part of JSON Schema that [`json_schema`] uses: why `value` does not fit, if it does not.
fn misfit(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(path) = schema["$ref"].as_str() {
        let target = &root["$defs"][path.strip_prefix("#/$defs/").unwrap()];
        assert!(!target.is_null(), "{path} is defined");
        return misfit(root, target, value);
    }
    for (key, exactly) in [("oneOf", true), ("anyOf", false)] {
        let Some(choices) = schema[key].as_array() else {
            continue;
        };
        let fitting = choices
            .iter()
            .filter(|one| misfit(root, one, value).is_none());
        let fitting = fitting.count();
        if fitting == 0 || (exactly && fitting > 1) {
            return Some(format!("{value} fits {fitting} of {key}"));
        }
    }
    let wrong = |what: &str| Some(format!("{value}: {what}"));
    if let Some(only) = schema.get("const") {
        return (only != value).then(|| format!("{value} is not {only}"));
    }
    if let Some(words) = schema["enum"].as_array() {
        return (!words.contains(value)).then(|| format!("{value} is none of {words:?}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let is = |name: &&str| match *name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    if !types.is_empty() && !types.iter().any(is) {
        return wrong(&format!("is not {types:?}"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        return wrong("is too small");
    }
    if let (Some(most), Some(text)) = (schema["maxLength"].as_u64(), value.as_str())
        && text.chars().count() as u64 > most
    {
        return wrong("is too long");
    }
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
        return list.iter().find_map(|item| misfit(root, items, item));
    }
    let fields = value.as_object()?;
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return wrong(&format!("{name} is missing"));
        }
    }
    let properties = schema["properties"].as_object()?;
    fields.iter().find_map(|(name, value)| {
        let why = misfit(root, properties.get(name)?, value)?;
        Some(format!("{name}: {why}"))
    })
}

/// The objects in the blocks of docs/protocol.md that are marked so.
fn documented(side: &str) -> Vec<Value> {
    let text = include_str!("../../../docs/protocol.md");
    let blocks = text.split("```").filter_map(|part| {
        let inner = part.strip_prefix(&format!("json {side}"))?;
        Some(inner.trim())
    });
    blocks
        .flat_map(|block| serde_json::Deserializer::from_str(block).into_iter::<Value>())
        .map(Result::unwrap)
        .collect()
}

#[test]
fn every_documented_message_fits_its_schema() {
    let schema = json_schema();
    for (side, all) in [("client", "ClientMessage"), ("server", "ServerMessage")] {
        let examples = documented(side);
        assert!(examples.len() > 20, "{side}: {}", examples.len());
        for example in examples {
            let kind = example["type"].as_str().unwrap();
            let own = &schema["$defs"][&format!("{side}.{kind}")];
            assert!(!own.is_null(), "{side}.{kind}");
            assert_eq!(misfit(&schema, own, &example), None, "{example}");
            assert_eq!(misfit(&schema, &schema["$defs"][all], &example), None);
        }
    }
}

#[test]
fn what_the_schema_takes_the_parser_takes_and_what_it_refuses_is_refused() {
    let schema = json_schema();
    let fits = |message: &Value| {
        let kind = message["type"].as_str().unwrap_or_default();
        let own = &schema["$defs"][&format!("client.{kind}")];
        !own.is_null() && misfit(&schema, own, message).is_none()
    };
    let mut cases = documented("client");
    let plain = cases.clone();
    // Each documented message without each of its fields, and with each of them of a wrong type.
    for message in &plain {
        for name in message.as_object().unwrap().keys() {
            for other in [None, Some(json!(null)), Some(json!([1])), Some(json!(-1))] {
                let mut changed = message.clone();
                match other {
                    None => changed.as_object_mut().unwrap().remove(name),
                    Some(value) => changed.as_object_mut().unwrap().insert(name.clone(), value),
                };
                cases.push(changed);
            }
        }
    }
    for message in cases {
        // The parser looks at what `report` is about beyond a single field, and takes any metadata.
        let is_report = message["type"] == "report";
        if is_report && message["to"].is_null() && message["callId"].is_null() {
            continue;
        }
        let parsed = parse(&message.to_string());
        assert_eq!(parsed.is_ok(), fits(&message), "{message}: {parsed:?}");
    }
}

#[test]
fn the_async_api_document_leads_to_every_message() {
    let document = async_api("0");
    let channel = document["channels"]["ws"]["messages"].as_object().unwrap();
    assert_eq!(channel.len(), MessageType::ALL.len() + FrameType::ALL.len());
    for message in channel.values() {
        let path = message["payload"]["$ref"].as_str().unwrap();
        assert!(!document.pointer(&path[1..]).unwrap().is_null());
    }
    for operation in ["fromClient", "fromServer"] {
        for reference in document["operations"][operation]["messages"]
            .as_array()
            .unwrap()
        {
            let path = reference["$ref"].as_str().unwrap();
            assert!(document.pointer(&path[1..]).is_some(), "{path}");
        }
    }
}
