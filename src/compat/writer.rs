//! JSON objects written field by field.

use crate::protocol::write_json_str;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_written_field_by_field() {
        let written = Writer::new("t")
            .string("q\"", "v")
            .raw("r", "{}")
            .string_or_null("s", None)
            .finish();
        assert_eq!(written, r#"{"type":"t","q\"":"v","r":{},"s":null}"#);
        assert_eq!(Writer::untyped().finish(), "{}");
    }
}
