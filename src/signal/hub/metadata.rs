//! A session's metadata: the client's own with the token's over it.

use crate::protocol::{ErrorCode, MAX_METADATA, RequestError, write_json_str};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use std::fmt;

/// Merges the two at their top level: a key of the token goes before the client's, and the client's
/// other keys stay the text that they were. Where one of them is not an object, the token's stands alone.
///
/// # Errors
/// `too-large` where both together are over [`MAX_METADATA`].
pub(super) fn merged(
    own: Option<Box<RawValue>>,
    token: Option<&Value>,
) -> Result<Option<Box<RawValue>>, RequestError> {
    let Some(token) = token else {
        return Ok(own);
    };
    let members = match (&own, token) {
        (Some(own), Value::Object(token)) => serde_json::from_str::<Members<'_>>(own.get())
            .ok()
            .map(|members| (members, token)),
        _ => None,
    };
    let Some((members, token)) = members else {
        return Ok(to_raw_value(token).ok());
    };
    let text = write(&members, token);
    if text.len() > MAX_METADATA {
        let message =
            format!("metadata and that of the token have at most {MAX_METADATA} bytes together");
        return Err(RequestError::new(ErrorCode::TooLarge, message));
    }
    Ok(RawValue::from_string(text).ok())
}

fn write(own: &Members<'_>, token: &Map<String, Value>) -> String {
    let mut text = String::from("{");
    let mut member = |key: &str, value: &str| {
        if text.len() > 1 {
            text.push(',');
        }
        write_json_str(&mut text, key);
        text.push(':');
        text.push_str(value);
    };
    for (key, value) in &own.0 {
        if !token.contains_key(key) {
            member(key, value.get());
        }
    }
    for (key, value) in token {
        member(key, &value.to_string());
    }
    text.push('}');
    text
}

/// The members of an object in their order, each value as it was written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = vec![];
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(own: Option<&str>, token: Option<Value>) -> Option<String> {
        let own = own.map(|own| RawValue::from_string(own.into()).unwrap());
        let merged = merged(own, token.as_ref()).unwrap();
        merged.map(|raw| raw.get().to_owned())
    }

    #[test]
    fn a_key_of_the_token_goes_before_the_clients() {
        let own = r#"{"callbox":{"instance":"ab"}, "big":12345678901234567890123, "plan":"own"}"#;
        let token = json!({"plan": "paid", "name": "Ann"});
        let both = text(Some(own), Some(token)).unwrap();
        assert!(both.contains("12345678901234567890123"), "{both}");
        let both: Value = serde_json::from_str(&both).unwrap();
        assert_eq!(
            (&both["callbox"], &both["plan"], &both["name"]),
            (&json!({"instance": "ab"}), &json!("paid"), &json!("Ann"))
        );
    }

    #[test]
    fn one_of_them_alone_stands_as_it_is() {
        assert_eq!(text(None, None), None);
        assert_eq!(text(Some("[1, 2]"), None).as_deref(), Some("[1, 2]"));
        assert_eq!(
            text(None, Some(json!({"a": 1}))).as_deref(),
            Some(r#"{"a":1}"#)
        );
        for own in ["7", r#""plan""#, "[]"] {
            let stands = text(Some(own), Some(json!({"a": 1})));
            assert_eq!(stands.as_deref(), Some(r#"{"a":1}"#));
        }
        assert_eq!(text(Some("{}"), Some(json!(3))).as_deref(), Some("3"));
        // A repeated or escaped name of the client is that name all the same.
        let own = r#"{"pl\u0061n":1,"plan":2,"x":"\""}"#;
        let both = text(Some(own), Some(json!({"plan": 3}))).unwrap();
        assert_eq!(both, r#"{"x":"\"","plan":3}"#);
    }

    #[test]
    fn both_together_are_bounded() {
        let own = RawValue::from_string(format!("{{\"a\":\"{}\"}}", "x".repeat(5_000))).unwrap();
        let refused = merged(Some(own), Some(&json!({"b": "y".repeat(5_000)})));
        assert_eq!(refused.unwrap_err().code, ErrorCode::TooLarge);
    }
}
