//! The top level of a JSON object, as it was sent.

use crate::protocol::{ErrorCode, FrameError, MAX_DEPTH, is_deeper_than};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// Names and values of an object. Of fields with one name the last counts, as in every browser. The
/// frame bounds how many there are.
#[derive(Debug)]
pub struct Object<'a>(Vec<Field<'a>>);

type Field<'a> = (Cow<'a, str>, &'a RawValue);

impl<'a> Object<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// The text is not JSON, not an object, or nested deeper than a message may be.
    pub fn parse(text: &'a str) -> Result<Self, FrameError> {
        let object: Result<Self, _> = serde_json::from_str(text);
        let Self(fields) = object.map_err(|_| malformed("a message is a JSON object"))?;
        match is_deeper_than(text, MAX_DEPTH) {
            true => Err(malformed("the message is nested too deeply")),
            false => Ok(Self(last_of_each(fields))),
        }
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let mut fields = self.0.iter();
        fields.find(|(n, _)| n == name).map(|(_, raw)| *raw)
    }

    /// The value of a field that is a string.
    pub fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).and_then(string)
    }

    /// The text of a field, `null` included.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).map(RawValue::get)
    }

    /// The string in the first of several fields that holds one which is not empty.
    pub fn first(&self, names: &[&str]) -> Option<Cow<'a, str>> {
        let strings = names.iter().filter_map(|name| self.string(name));
        strings.into_iter().find(|text| !text.is_empty())
    }

    /// The object in a field.
    pub fn object(&self, name: &str) -> Option<Object<'a>> {
        Object::parse(self.text(name)?).ok()
    }

    /// Keeps the fields whose names are wanted.
    pub fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| is_wanted(name));
    }

    /// Every field once, at the place of its last value.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, raw)| (&**name, *raw))
    }
}

/// Without the fields that have the name of a later one.
fn last_of_each<'a>(mut fields: Vec<Field<'a>>) -> Vec<Field<'a>> {
    let has_later = |(n, (name, _)): (usize, &Field<'_>)| {
        fields[n + 1..].iter().any(|(later, _)| later == name)
    };
    if fields.len() <= FEW && !fields.iter().enumerate().any(has_later) {
        return fields;
    }
    let mut seen = HashSet::with_capacity(fields.len());
    let mut is_last: Vec<_> = (fields.iter().rev())
        .map(|(name, _)| seen.insert(&**name))
        .collect();
    is_last.reverse();
    let mut is_last = is_last.into_iter();
    fields.retain(|_| is_last.next() == Some(true));
    fields
}

/// The text of a JSON string.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        // What is JSON already has nothing else to be read.
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|Text(text)| text)
}

/// The elements of the list that a JSON text is; none where it is none.
pub fn list(text: &str) -> Vec<&str> {
    let list: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    list.into_iter().map(RawValue::get).collect()
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

/// Fields that are compared with each other first; among more of them equal names are looked up.
const FEW: usize = 16;

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;

        impl<'de> Visitor<'de> for TopLevel {
            type Value = Vec<Field<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Text(name), raw)) = map.next_entry()? {
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
    fn an_object_has_as_many_fields_as_its_frame_holds() {
        let fields: Vec<_> = (0..5_000)
            .map(|n| format!("\"f{}\":{n}", n % 3_000))
            .collect();
        let text = format!("{{{}}}", fields.join(","));
        let object = Object::parse(&text).unwrap();
        let names: Vec<_> = object.fields().map(|(name, _)| name.to_owned()).collect();
        let expected = (2_000..5_000).map(|n| format!("f{}", n % 3_000));
        assert_eq!(names, expected.collect::<Vec<_>>(), "the last of each");
        assert_eq!(object.text("f7"), Some("3007"));
    }

    #[test]
    fn what_is_not_an_object_is_malformed() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
        for text in ["", "x", "[]", "1", "null", "{", r#"{"a":}"#, &deep] {
            assert!(Object::parse(text).unwrap_err().malformed, "{text}");
        }
        assert!(Object::parse(r#"{"a":"[[[[\"]]]{"}"#).is_ok());
    }
}
