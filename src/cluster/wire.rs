//! What nodes say to each other, as bytes: batches of entries.
//!
//! The head of a batch is readable, its entries are sealed. Another wire version is refused with its
//! number. Entries of kind 24 and above say how long they are, so that a node passes over those
//! that a later release has added. Decoding allocates no more than it was given, and whatever it is given
//! never panics.

mod codec;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

use super::Incarnation;
use super::seal::LinkKeys;
use crate::protocol::{CloseCode, DialectKind, FrameType, Publication};
use crate::signal::hub::{EndedSession, Loss};
use crate::signal::{Frame, Target};
use codec::{Read, Reader, Writer};
use std::sync::Arc;

/// The version that is written, and the only one that is read.
pub const VERSION: u8 = 1;
/// Bytes of the head: version, sender, receiver, generation, number.
const HEAD: usize = 1 + 8 + 8 + 4 + 8;
/// Entries of one batch at most, so that one that is forged costs little.
pub const MAX_ENTRIES: usize = 65_536;

/// The first kind of entry that is passed over where it is not known: every kind added from now on is.
const SKIPPABLE: u8 = 24;
const EVENT: u8 = 24;

pub use crate::signal::Word as Entry;

/// What the head of a batch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Who sent it.
    pub from: Incarnation,
    /// For whom.
    pub to: Incarnation,
    /// The generation of the link.
    pub generation: u32,
    /// The number in the generation, from 1 on.
    pub number: u64,
}

/// Why a batch is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is of a node of another release.
    #[error("wire version {0}, and this node speaks version {VERSION}")]
    Version(u8),
    /// It is not from a node with the cluster's secret, or was changed.
    #[error("the batch does not open with cluster.secret")]
    Seal,
    /// It is not what a node writes.
    #[error("the batch is malformed")]
    Malformed,
}

impl Head {
    fn write(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.from.bits().to_be_bytes());
        bytes[9..17].copy_from_slice(&self.to.bits().to_be_bytes());
        bytes[17..21].copy_from_slice(&self.generation.to_be_bytes());
        bytes[21..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// Reads the head of a batch.
    ///
    /// # Errors
    /// It is of another version, or malformed.
    pub fn read(batch: &[u8]) -> Result<Self, WireError> {
        let reader = &mut Reader(batch);
        match reader.u8()? {
            VERSION => {}
            other => return Err(WireError::Version(other)),
        }
        Ok(Self {
            from: Incarnation::from_bits(u64::from_be_bytes(reader.array()?)),
            to: Incarnation::from_bits(u64::from_be_bytes(reader.array()?)),
            generation: u32::from_be_bytes(reader.array()?),
            number: u64::from_be_bytes(reader.array()?),
        })
    }
}

/// Makes a batch of entries that [`write_entry`] has written.
pub fn seal_batch(head: Head, keys: &LinkKeys, mut entries: Vec<u8>) -> Vec<u8> {
    let bytes = head.write();
    keys.seal(head.generation, head.number, &bytes, &mut entries);
    let mut batch = Vec::with_capacity(HEAD + entries.len());
    batch.extend_from_slice(&bytes);
    batch.append(&mut entries);
    batch
}

/// Reads the entries of a batch.
///
/// # Errors
/// It does not open, or is malformed.
pub fn open_batch(batch: &[u8], keys: &LinkKeys) -> Result<Vec<Entry>, WireError> {
    let head = Head::read(batch)?;
    let (bytes, sealed) = batch.split_at(HEAD);
    let opened = keys.open(head.generation, head.number, bytes, sealed);
    read_entries(&opened.ok_or(WireError::Seal)?)
}

/// Reads entries up to the end.
///
/// # Errors
/// They are malformed.
pub fn read_entries(bytes: &[u8]) -> Result<Vec<Entry>, WireError> {
    Ok(read_known(bytes)?.0)
}

/// The entries that are known, and how many are not.
fn read_known(bytes: &[u8]) -> Result<(Vec<Entry>, usize), WireError> {
    let reader = &mut Reader(bytes);
    let (mut entries, mut unknown) = (vec![], 0);
    while !reader.0.is_empty() {
        if entries.len() + unknown == MAX_ENTRIES {
            return Err(WireError::Malformed);
        }
        match reader.0.first() {
            Some(kind) if *kind >= SKIPPABLE => match reader.skippable()? {
                Some(entry) => entries.push(entry),
                None => unknown += 1,
            },
            _ => entries.push(reader.entry()?),
        }
    }
    Ok((entries, unknown))
}

/// Appends an entry.
pub fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    let out = &mut Writer(out);
    match entry {
        Entry::Enter {
            vconn,
            peer,
            client,
            dialect,
            revoked_until,
            place,
            frame,
        } => {
            out.tag(0, *vconn);
            out.peer(*peer);
            out.ip(*client);
            out.number(*dialect as u64);
            out.option(*revoked_until, Writer::number);
            out.0.extend_from_slice(place);
            out.frame(frame);
        }
        Entry::Frame {
            vconn,
            number,
            frame,
        } => {
            out.tag(1, *vconn);
            out.number(*number);
            out.frame(frame);
        }
        Entry::Confirmed { vconn, peer, seq } => {
            out.tag(2, *vconn);
            out.peer(*peer);
            out.number(*seq);
        }
        Entry::Closed { vconn, loss } => {
            out.tag(3, *vconn);
            out.number(u64::from(*loss == Loss::Timeout));
        }
        Entry::Leave { vconn } => out.tag(4, *vconn),
        Entry::Cancel { vconn } => out.tag(18, *vconn),
        Entry::Entered {
            vconn,
            peer,
            identity,
            room,
        } => {
            out.tag(5, *vconn);
            out.peer(*peer);
            out.option(identity.as_deref(), Writer::text);
            out.option(room.as_deref(), Writer::text);
        }
        Entry::Refused { vconn } => out.tag(6, *vconn),
        Entry::Astray { vconn, place } => {
            out.tag(7, *vconn);
            out.0.extend_from_slice(place);
        }
        Entry::Send {
            kind,
            sender,
            text,
            to,
        } => {
            out.tag(8, *kind as u64);
            out.option(*sender, |out, sender| out.number(sender as u64));
            out.text(text);
            out.number(to.len() as u64);
            for target in to {
                out.number(target.vconn);
                out.peer(target.peer);
                out.option(target.seq, Writer::number);
            }
        }
        Entry::Hold { vconn, ms } => {
            out.tag(9, *vconn);
            out.number(*ms);
        }
        Entry::Close {
            vconn,
            code,
            reason,
        } => {
            out.tag(10, *vconn);
            out.number(*code as u64);
            out.text(reason);
        }
        Entry::Left {
            vconn,
            revoked_until,
        } => {
            out.tag(11, *vconn);
            out.option(*revoked_until, Writer::number);
        }
        Entry::Revoke { user, until } => {
            out.tag(12, 0);
            out.text(user);
            out.number(*until);
        }
        Entry::Settled => out.tag(13, 0),
        Entry::Ask { id, question } => {
            out.tag(14, *id);
            out.text(question);
        }
        Entry::Answer { id, answer } => {
            out.tag(15, *id);
            out.text(answer);
        }
        Entry::Published { realm, publication } => {
            out.tag(16, *realm as u64);
            out.text(&publication.topic);
            out.bytes(&publication.properties);
            out.bytes(&publication.payload);
            out.number(publication.qos.into());
            out.option(publication.room.as_deref(), Writer::text);
        }
        Entry::Ended(ended) => {
            out.tag(17, ended.code as u64);
            out.0.extend_from_slice(&ended.token.to_be_bytes());
            out.ip(ended.network);
        }
        Entry::Attach {
            generation,
            vconn,
            peer,
            seq,
            received,
            said,
        } => {
            out.tag(20, u64::from(*generation));
            out.number(*vconn);
            out.peer(*peer);
            for number in [seq, received, said] {
                out.number(*number);
            }
        }
        Entry::AllNamed { generation } => out.tag(21, u64::from(*generation)),
        Entry::Attached { vconn } => out.tag(22, *vconn),
        Entry::Detached { vconn } => out.tag(23, *vconn),
        Entry::Event { vconn, peer, text } => out.skippable(EVENT, |out| {
            out.number(*vconn);
            out.peer(*peer);
            out.text(text);
        }),
    }
}

impl Writer<'_> {
    /// An entry of a kind that other releases may not know.
    fn skippable(&mut self, kind: u8, write: impl FnOnce(&mut Writer<'_>)) {
        let mut body = vec![];
        write(&mut Writer(&mut body));
        self.0.push(kind);
        self.bytes(&body);
    }

    fn frame(&mut self, frame: &Frame) {
        self.text(&frame.text);
        self.option(frame.room.as_deref(), Writer::text);
        self.option(frame.dialect, |out, dialect| out.number(dialect as u64));
        self.option(frame.grant.as_deref(), Writer::text);
    }
}

impl Reader<'_> {
    fn owned(&mut self) -> Read<String> {
        self.text().map(str::to_owned)
    }

    fn frame(&mut self) -> Read<Frame> {
        Ok(Frame {
            text: self.owned()?,
            room: self.option(Self::owned)?,
            dialect: self.option(|r| r.of(DialectKind::ALL))?,
            grant: self.option(Self::owned)?,
        })
    }

    fn target(&mut self) -> Read<Target> {
        Ok(Target {
            vconn: self.number()?,
            peer: self.peer()?,
            seq: self.option(Self::number)?,
        })
    }

    /// An entry that says how long it is; `None` for one that this release does not know.
    fn skippable(&mut self) -> Read<Option<Entry>> {
        let kind = self.u8()?;
        let body = &mut Reader(self.bytes()?);
        let entry = match kind {
            EVENT => Entry::Event {
                vconn: body.number()?,
                peer: body.peer()?,
                text: body.owned()?,
            },
            _ => return Ok(None),
        };
        match body.0 {
            [] => Ok(Some(entry)),
            _ => Err(WireError::Malformed),
        }
    }

    fn entry(&mut self) -> Read<Entry> {
        Ok(match self.u8()? {
            0 => Entry::Enter {
                vconn: self.number()?,
                peer: self.peer()?,
                client: self.ip()?,
                dialect: self.of(DialectKind::ALL)?,
                revoked_until: self.option(Self::number)?,
                place: self.array()?,
                frame: self.frame()?,
            },
            1 => Entry::Frame {
                vconn: self.number()?,
                number: self.number()?,
                frame: self.frame()?,
            },
            2 => Entry::Confirmed {
                vconn: self.number()?,
                peer: self.peer()?,
                seq: self.number()?,
            },
            3 => Entry::Closed {
                vconn: self.number()?,
                loss: match self.bool()? {
                    true => Loss::Timeout,
                    false => Loss::Disconnected,
                },
            },
            4 => Entry::Leave {
                vconn: self.number()?,
            },
            5 => Entry::Entered {
                vconn: self.number()?,
                peer: self.peer()?,
                identity: self.option(Self::owned)?,
                room: self.option(Self::owned)?,
            },
            6 => Entry::Refused {
                vconn: self.number()?,
            },
            7 => Entry::Astray {
                vconn: self.number()?,
                place: self.array()?,
            },
            8 => {
                let kind = self.of(FrameType::ALL)?;
                let sender = self.option(|r| r.of(DialectKind::ALL))?;
                let text = self.text()?.into();
                let count = self.number()?;
                let mut to = vec![];
                for _ in 0..count {
                    to.push(self.target()?);
                }
                Entry::Send {
                    kind,
                    sender,
                    text,
                    to,
                }
            }
            9 => Entry::Hold {
                vconn: self.number()?,
                ms: self.number()?,
            },
            10 => Entry::Close {
                vconn: self.number()?,
                code: self.close_code()?,
                reason: self.owned()?,
            },
            11 => Entry::Left {
                vconn: self.number()?,
                revoked_until: self.option(Self::number)?,
            },
            12 => {
                self.nothing()?;
                Entry::Revoke {
                    user: self.owned()?,
                    until: self.number()?,
                }
            }
            13 => {
                self.nothing()?;
                Entry::Settled
            }
            14 => Entry::Ask {
                id: self.number()?,
                question: self.owned()?,
            },
            15 => Entry::Answer {
                id: self.number()?,
                answer: self.owned()?,
            },
            16 => Entry::Published {
                realm: self.of(DialectKind::ALL)?,
                publication: Arc::new(Publication {
                    topic: self.text()?.into(),
                    properties: self.bytes()?.into(),
                    payload: self.bytes()?.into(),
                    qos: u8::try_from(self.number()?).or(Err(WireError::Malformed))?,
                    room: self.option(Self::text)?.map(Arc::from),
                }),
            },
            18 => Entry::Cancel {
                vconn: self.number()?,
            },
            17 => Entry::Ended(EndedSession {
                code: self.close_code()?,
                token: u128::from_be_bytes(self.array()?),
                network: self.ip()?,
            }),
            20 => Entry::Attach {
                generation: self.u32()?,
                vconn: self.number()?,
                peer: self.peer()?,
                seq: self.number()?,
                received: self.number()?,
                said: self.number()?,
            },
            21 => Entry::AllNamed {
                generation: self.u32()?,
            },
            22 => Entry::Attached {
                vconn: self.number()?,
            },
            23 => Entry::Detached {
                vconn: self.number()?,
            },
            _ => return Err(WireError::Malformed),
        })
    }

    fn close_code(&mut self) -> Read<CloseCode> {
        let code = u16::try_from(self.number()?).or(Err(WireError::Malformed))?;
        CloseCode::from_code(code).ok_or(WireError::Malformed)
    }

    fn u32(&mut self) -> Read<u32> {
        self.number()?.try_into().or(Err(WireError::Malformed))
    }

    fn nothing(&mut self) -> Read<()> {
        match self.number()? {
            0 => Ok(()),
            _ => Err(WireError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests;
