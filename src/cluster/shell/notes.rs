//! What all nodes are to know, those too that come later: kept in Redis, sealed, by what it is about.

use super::super::redis::{Redis, StoreError};
use super::super::seal::Secrets;
use super::super::{Incarnation, seal};

/// Something to be known, as text, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Names what it is about: a later note of the same takes its place.
    pub about: String,
    /// What it says; `None`: nothing any more.
    pub text: Option<String>,
}

/// The fields that stand for what a note is about, under each secret; the first is the one to write.
fn fields(secrets: &Secrets, about: &str) -> Vec<String> {
    let keys = secrets.notes().into_iter();
    keys.map(|key| seal::room_hash(&key, about)).collect()
}

/// Has Redis keep notes.
pub(super) async fn keep(
    redis: &Redis,
    secrets: &Secrets,
    notes: &[Note],
) -> Result<(), StoreError> {
    let records = secrets.records(Incarnation::from_bits(0));
    let (mut set, mut gone) = (vec![], vec![]);
    for note in notes {
        let mut fields = fields(secrets, &note.about).into_iter();
        if let (Some(text), Some(field)) = (&note.text, fields.next()) {
            let place: [&[u8]; 2] = [b"note", field.as_bytes()];
            let sealed = records.seal(rand::random(), &place, text.as_bytes());
            set.push((field, sealed));
        }
        gone.extend(fields);
        if note.text.is_none() {
            gone.extend(self::fields(secrets, &note.about));
        }
    }
    redis.keep_notes(&set, &gone).await
}

/// The texts that Redis has. One that does not open is of another cluster's time, and says nothing.
pub(super) async fn load(redis: &Redis, secrets: &Secrets) -> Result<Vec<String>, StoreError> {
    let notes = redis.notes().await?.into_iter();
    let texts = notes.filter_map(|(field, sealed)| {
        let text = secrets.open_record(&[b"note", field.as_bytes()], &sealed)?;
        String::from_utf8(text).ok()
    });
    Ok(texts.collect())
}
