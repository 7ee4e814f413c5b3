//! The top level of a JSON object: read without looking deeper, and written field by field.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

use crate::protocol::write_json_str;

/// The fields of an object, in order; of those with one name the last counts.
#[derive(Debug)]
pub struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads `text`; `None` where it is no JSON object.
    pub fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The text of a field, `null` included.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(field, _)| field == name);
        found.map(|(_, value)| value.get())
    }

    /// The string in a field; `None` for any other value, and for an empty one.
    pub fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)
            .and_then(string)
            .filter(|text| !text.is_empty())
    }

    /// The first of several fields that holds a string.
    pub fn first(&self, names: &[&str]) -> Option<Cow<'a, str>> {
        names.iter().find_map(|name| self.string(name))
    }

    /// The object in a field.
    pub fn object(&self, name: &str) -> Option<Object<'a>> {
        self.get(name).and_then(Object::parse)
    }

    /// Every field.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_ref(), value.get()))
    }
}

/// The string that a JSON text is.
pub fn string(text: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let Text(text) = serde_json::from_str(text).ok()?;
    Some(text)
}

/// The elements of the list that a JSON text is.
pub fn list(text: &str) -> Vec<&str> {
    let list: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    list.into_iter().map(RawValue::get).collect()
}

/// Writes an object.
#[derive(Debug)]
pub struct Writer(String);

impl Writer {
    /// Begins with the `type`.
    pub fn new(kind: &str) -> Self {
        let mut writer = Self::untyped();
        writer.string("type", kind);
        writer
    }

    /// Begins without a `type`.
    pub fn untyped() -> Self {
        Self(String::with_capacity(256))
    }

    /// Adds a string.
    pub fn string(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        write_json_str(&mut self.0, value);
        self
    }

    /// Adds a string, or `null`.
    pub fn string_or_null(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.string(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// Adds JSON text as it is.
    pub fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        self.name(name);
        self.0.push_str(json);
        self
    }

    /// Adds JSON text where there is some.
    pub fn raw_if(&mut self, name: &str, json: Option<&str>) -> &mut Self {
        match json {
            Some(json) => self.raw(name, json),
            None => self,
        }
    }

    /// The text.
    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.0);
        if text.is_empty() {
            text.push('{');
        }
        text.push('}');
        text
    }

    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        write_json_str(&mut self.0, name);
        self.0.push(':');
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;
        impl<'de> Visitor<'de> for TopLevel {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut fields = Vec::with_capacity(8);
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(TopLevel).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_at_its_top_level_and_written_again() {
        let text = r#"{"a":"x","n":1,"o":{"a":[1, 2]},"a":"\u0079"}"#;
        let object = Object::parse(text).unwrap();
        assert_eq!(object.string("a").unwrap(), "y");
        assert_eq!(object.first(&["b", "n", "a"]).unwrap(), "y");
        assert_eq!(object.object("o").unwrap().get("a"), Some("[1, 2]"));
        assert_eq!(list("[1,\"b\",{}]"), ["1", "\"b\"", "{}"]);
        let written = Writer::new("t")
            .string("q\"", "v")
            .raw("r", "{}")
            .string_or_null("s", None)
            .finish();
        assert_eq!(written, r#"{"type":"t","q\"":"v","r":{},"s":null}"#);
        assert_eq!(Writer::untyped().finish(), "{}");
        for other in ["[]", "1", "", "{", "\"a\""] {
            assert!(Object::parse(other).is_none(), "{other}");
        }
    }
}
