//! The top level of a JSON object, as it was sent.

use crate::protocol::{ErrorCode, FrameError, MAX_DEPTH, is_deeper_than};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Names and values of an object. Of fields with one name the last counts, as in every browser.
#[derive(Debug)]
pub struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// The text is not JSON, not an object, or nested deeper than a message may be.
    pub fn parse(text: &'a str) -> Result<Self, FrameError> {
        let object = serde_json::from_str(text);
        let object = object.map_err(|_| malformed("a message is a JSON object"))?;
        match is_deeper_than(text, MAX_DEPTH) {
            true => Err(malformed("the message is nested too deeply")),
            false => Ok(object),
        }
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let mut fields = self.0.iter().rev();
        fields.find(|(n, _)| n == name).map(|(_, raw)| *raw)
    }

    /// The value of a field that is a string.
    pub fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).and_then(string)
    }

    /// Every field once, at the place of its last value.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().enumerate().filter_map(|(n, (name, raw))| {
            let is_last = !self.0[n + 1..].iter().any(|(later, _)| later == name);
            is_last.then_some((&**name, *raw))
        })
    }
}

/// The text of a JSON string.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|Text(text)| text)
}

/// A message that is not one of its protocol: ten in a row end a connection.
pub fn malformed(message: &'static str) -> FrameError {
    FrameError {
        code: ErrorCode::InvalidMessage,
        message: message.into(),
        id: None,
        malformed: true,
    }
}

/// Fields that an object may have: more than any client sends, and few enough to compare.
const MAX_FIELDS: usize = 64;

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;

        impl<'de> Visitor<'de> for TopLevel {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = vec![];
                while let Some((Text(name), raw)) = map.next_entry()? {
                    if fields.len() >= MAX_FIELDS {
                        return Err(A::Error::custom("too many fields"));
                    }
                    fields.push((name, raw));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(TopLevel).map(Self)
    }
}

/// A string that borrows from its source where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_counts_and_texts_stay_as_sent() {
        let object = Object::parse(r#"{"a":1,"b":"x\u0041","a":[1.0e2, 3]}"#).unwrap();
        assert_eq!(object.get("a").unwrap().get(), "[1.0e2, 3]");
        assert_eq!(object.string("b").unwrap(), "xA");
        assert_eq!(object.string("a"), None);
        let names: Vec<_> = object.fields().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn what_is_not_an_object_is_malformed() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
        let many: Vec<_> = (0..100).map(|n| format!("\"f{n}\":1")).collect();
        let many = format!("{{{}}}", many.join(","));
        for text in ["", "x", "[]", "1", "null", "{", r#"{"a":}"#, &deep, &many] {
            assert!(Object::parse(text).unwrap_err().malformed, "{text}");
        }
        assert!(Object::parse(r#"{"a":"[[[[\"]]]{"}"#).is_ok());
    }
}
