//! What nodes say and store, sealed: AES-256-GCM with keys derived from the cluster's secrets.
//!
//! Who can read Redis learns no names, passwords or messages; who can write to it forges none. The
//! first secret seals and all of them open, so that a secret rotates without a pause.

use super::Incarnation;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use std::fmt::{self, Write as _};

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// What sealing adds to a batch: the tag.
pub const TAG_LEN: usize = 16;
/// Bytes before the text of a record: who wrote it, and its nonce.
const RECORD_HEAD: usize = 8 + NONCE_LEN;
/// Salt of the derivation; a change of the formats takes another one.
const SALT: &[u8] = b"callbox cluster 1";
/// The shortest secret that is taken, bytes: 128 bits written in hex.
pub const MIN_SECRET: usize = 32;

/// Why there are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The list is empty.
    #[error("there is no secret")]
    None,
    /// One can be guessed.
    #[error("a secret has {0} bytes: it needs at least {MIN_SECRET}")]
    Short(usize),
}

/// The cluster's secrets, from which every key comes.
#[derive(Clone)]
pub struct Secrets(Vec<Prk>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// The length of a key, for the derivation.
struct KeyLen;

impl KeyType for KeyLen {
    fn len(&self) -> usize {
        32
    }
}

impl Secrets {
    /// Takes secrets; the first one seals.
    ///
    /// # Errors
    /// There is none, or one is short.
    pub fn new(secrets: &[SecretString]) -> Result<Self, SecretError> {
        if secrets.is_empty() {
            return Err(SecretError::None);
        }
        let salt = Salt::new(HKDF_SHA256, SALT);
        let extract = |secret: &SecretString| {
            let bytes = secret.expose_secret().as_bytes();
            match bytes.len() {
                len @ ..MIN_SECRET => Err(SecretError::Short(len)),
                _ => Ok(salt.extract(bytes)),
            }
        };
        secrets
            .iter()
            .map(extract)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The bytes by which rooms are found in a store that has none yet: the same at each node, so that
    /// tokens lead to their rooms after the store has forgotten, whichever node comes first.
    pub fn rooms(&self) -> [u8; 32] {
        expand(&self.0[0], &[b"rooms"])
    }

    /// By what notes are found, under each secret.
    pub fn notes(&self) -> Vec<[u8; 32]> {
        self.0.iter().map(|prk| expand(prk, &[b"notes"])).collect()
    }

    /// The keys of what `from` sends to `to`.
    pub fn link(&self, from: Incarnation, to: Incarnation) -> LinkKeys {
        let (from, to) = (from.bits().to_be_bytes(), to.bits().to_be_bytes());
        let keys = self.0.iter().map(|prk| key(prk, &[b"link", &from, &to]));
        LinkKeys(keys.collect())
    }

    /// The key of the records that `writer` makes.
    pub fn records(&self, writer: Incarnation) -> RecordKey {
        RecordKey {
            writer,
            key: record_key(&self.0[0], writer),
        }
    }

    /// Whether a record is sealed by the first secret.
    pub fn is_current(&self, place: &[&[u8]], sealed: &[u8]) -> bool {
        Self(self.0[..1].to_vec())
            .open_record(place, sealed)
            .is_some()
    }

    /// Reads a record of any node; `None` where the secret or `place` differs, or it was
    /// changed.
    pub fn open_record(&self, place: &[&[u8]], sealed: &[u8]) -> Option<Vec<u8>> {
        let (head, text) = sealed.split_at_checked(RECORD_HEAD)?;
        let (writer, nonce) = head.split_first_chunk()?;
        let (nonce, _) = nonce.split_first_chunk()?;
        let writer = Incarnation::from_bits(u64::from_be_bytes(*writer));
        let aad = associated(place);
        self.0.iter().find_map(|prk| {
            let mut text = text.to_vec();
            let key = record_key(prk, writer);
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = key.open_in_place(nonce, Aad::from(&aad), &mut text);
            let len = opened.ok()?.len();
            text.truncate(len);
            Some(text)
        })
    }
}

/// What stands for a room in keys of Redis: 32 characters of hex, from the room's name and the
/// store's own random bytes.
pub fn room_hash(mark: &[u8], room: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, mark), room.as_bytes());
    let mut text = String::with_capacity(32);
    for byte in &tag.as_ref()[..16] {
        write!(text, "{byte:02x}").expect("writing to a String succeeds");
    }
    text
}

/// Keys between two incarnations, in one direction.
pub struct LinkKeys(Vec<LessSafeKey>);

impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKeys")
    }
}

impl LinkKeys {
    /// Seals a batch. The pair of generation and number is used once for a pair of incarnations,
    /// which is what the cipher asks for; a batch sent again is the same bytes.
    pub fn seal(&self, generation: u32, number: u64, head: &[u8], text: &mut Vec<u8>) {
        let nonce = link_nonce(generation, number);
        self.0[0]
            .seal_in_place_append_tag(nonce, Aad::from(head), text)
            .expect("a batch is far below the cipher's limit");
    }

    /// Opens a batch; `None` where it is not from that sender, or was changed.
    pub fn open(
        &self,
        generation: u32,
        number: u64,
        head: &[u8],
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        self.0.iter().find_map(|key| {
            let mut text = sealed.to_vec();
            let nonce = link_nonce(generation, number);
            let len = key
                .open_in_place(nonce, Aad::from(head), &mut text)
                .ok()?
                .len();
            text.truncate(len);
            Some(text)
        })
    }
}

/// Seals the records of one incarnation.
pub struct RecordKey {
    writer: Incarnation,
    key: LessSafeKey,
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({})", self.writer)
    }
}

impl RecordKey {
    /// Seals a record for one place; `nonce` is drawn at random. Under one key, 2³² of them may be:
    /// an incarnation that writes 1,000 records a second lasts seven weeks, and then begins anew.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], place: &[&[u8]], text: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(RECORD_HEAD + text.len() + TAG_LEN);
        sealed.extend_from_slice(&self.writer.bits().to_be_bytes());
        sealed.extend_from_slice(&nonce);
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(associated(place)), &mut text)
            .expect("a record is far below the cipher's limit");
        sealed.append(&mut text);
        sealed
    }
}

fn record_key(prk: &Prk, writer: Incarnation) -> LessSafeKey {
    key(prk, &[b"record", &writer.bits().to_be_bytes()])
}

fn expand(prk: &Prk, info: &[&[u8]]) -> [u8; 32] {
    let mut bytes = [0; 32];
    prk.expand(info, KeyLen)
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("32 bytes are within what HKDF gives");
    bytes
}

fn key(prk: &Prk, info: &[&[u8]]) -> LessSafeKey {
    let bytes = expand(prk, info);
    let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("the key has the cipher's length");
    LessSafeKey::new(key)
}

fn link_nonce(generation: u32, number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..4].copy_from_slice(&generation.to_be_bytes());
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// The parts of a place with their lengths, so that no two places read the same.
fn associated(place: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![];
    for part in place {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Incarnation = Incarnation::from_bits(1);
    const B: Incarnation = Incarnation::from_bits(2);

    fn secrets(list: &[&str]) -> Secrets {
        let list: Vec<_> = list.iter().map(|text| text.repeat(32).into()).collect();
        Secrets::new(&list).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_its_place_alone(
            text in prop::collection::vec(any::<u8>(), 0..200),
            nonce: [u8; NONCE_LEN],
            flipped in any::<prop::sample::Index>(),
            numbers: (u32, u64),
        ) {
            let secrets = secrets(&["a"]);
            let sealed = secrets.records(A).seal(nonce, &[b"key", b"field"], &text);
            let open = |place: &[&[u8]], sealed: &[u8]| secrets.open_record(place, sealed);
            prop_assert_eq!(open(&[b"key", b"field"], &sealed), Some(text.clone()));
            prop_assert_eq!(open(&[b"keyf", b"ield"], &sealed), None);
            let mut broken = sealed;
            let place = flipped.index(broken.len());
            broken[place] ^= 1;
            prop_assert_eq!(open(&[b"key", b"field"], &broken), None);
            prop_assert_eq!(open(&[b"key", b"field"], &broken[..place]), None);

            let (generation, number) = numbers;
            let keys = secrets.link(A, B);
            let mut batch = text.clone();
            keys.seal(generation, number, b"head", &mut batch);
            prop_assert_eq!(keys.open(generation, number, b"head", &batch), Some(text));
            prop_assert_eq!(keys.open(generation, number, b"haed", &batch), None);
            let other = number.wrapping_add(1);
            prop_assert_eq!(keys.open(generation, other, b"head", &batch), None);
            let back = secrets.link(B, A);
            prop_assert_eq!(back.open(generation, number, b"head", &batch), None);
        }
    }

    #[test]
    fn secrets_rotate_by_a_list_of_which_the_first_seals() {
        let (old, both, new) = (secrets(&["a"]), secrets(&["b", "a"]), secrets(&["b"]));
        let place: &[&[u8]] = &[b"k"];
        let sealed = old.records(A).seal([0; NONCE_LEN], place, b"text");
        assert_eq!(both.open_record(place, &sealed).unwrap(), b"text");
        assert_eq!(new.open_record(place, &sealed), None);
        let sealed = both.records(B).seal([0; NONCE_LEN], place, b"text");
        assert_eq!(new.open_record(place, &sealed).unwrap(), b"text");
        assert_eq!(old.open_record(place, &sealed), None);
        let mut batch = b"text".to_vec();
        old.link(A, B).seal(1, 1, b"", &mut batch);
        assert!(both.link(A, B).open(1, 1, b"", &batch).is_some());
    }

    #[test]
    fn short_secrets_and_none_are_refused() {
        assert_eq!(Secrets::new(&[]).err(), Some(SecretError::None));
        let short = Secrets::new(&["short".into()]);
        assert_eq!(short.err(), Some(SecretError::Short(5)));
    }

    #[test]
    fn a_room_has_another_hash_in_another_store() {
        let hash = room_hash(&[1; 32], "room");
        assert_eq!(hash.len(), 32);
        assert_eq!(hash, room_hash(&[1; 32], "room"));
        assert_ne!(hash, room_hash(&[2; 32], "room"));
        assert_ne!(hash, room_hash(&[1; 32], "moor"));
    }
}
