//! The form of a hand-over in memory: sections, each with its checksum, in a sealed memfd.
//!
//! ```text
//! magic 8 · format u32 · oldest reader u32 · where the table is u64      little-endian
//! the sections, back to back
//! table: count u32 · of each section: tag 4, where u64, length u64, SHA-256 · SHA-256 of head and table
//! ```
//!
//! A process writes the format that its successor reads, which is this one or the one before it. A
//! successor takes a format that it reads, and sections that it knows; everything else is refused.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// The newest format that this binary reads and writes, and the oldest one. Format 1 is the first;
/// since format 2 WebSockets go on.
pub(super) const FORMAT: u32 = 2;
const OLDEST: u32 = 1;

const MAGIC: &[u8; 8] = b"CALLBOXH";
const HEAD: usize = 8 + 4 + 4 + 8;
const ENTRY: usize = 4 + 8 + 8 + 32;
/// Sections at most: a few of the box, and one a worker, of which there are 256.
const MAX_SECTIONS: usize = 1_024;

/// What a section is of.
pub(super) type Tag = [u8; 4];

/// Why a hand-over is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the snapshot cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the snapshot is of format {0}, and this binary reads {OLDEST} to {FORMAT}")]
    Format(u32),
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    #[error("the snapshot has a section {0:?} that this binary does not know")]
    Unknown(String),
    #[error("the snapshot has no section {0:?}")]
    Missing(String),
}

/// The format to write for a successor that reads up to `highest`; `None` where it reads none that
/// this binary writes.
pub(super) fn format_for(highest: u32) -> Option<u32> {
    let format = highest.min(FORMAT);
    (format >= OLDEST).then_some(format)
}

/// Whether this binary reads `format`.
pub(super) fn reads(format: u32) -> bool {
    (OLDEST..=FORMAT).contains(&format)
}

struct Section {
    tag: Tag,
    at: u64,
    length: u64,
    sum: [u8; 32],
}

/// Writes sections. What the memory file has no room for is kept beside it: a hand-over is then not
/// possible, but the process itself can go on from there.
pub(super) struct Writer {
    file: Option<File>,
    end: u64,
    sections: Vec<Section>,
    spilled: Vec<(Tag, Vec<u8>)>,
    failure: Option<io::Error>,
}

impl Writer {
    pub(super) fn new() -> Self {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("callbox-handover", flags);
        Self::into_file(file.map(File::from).map_err(io::Error::from))
    }

    fn into_file(file: io::Result<File>) -> Self {
        let (file, failure) = match file {
            Ok(file) => (Some(file), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            file,
            end: HEAD as u64,
            sections: vec![],
            spilled: vec![],
            failure,
        }
    }

    /// Appends a section.
    pub(super) fn add(&mut self, tag: Tag, bytes: Vec<u8>) {
        if let (None, Some(file)) = (&self.failure, &self.file) {
            match file.write_all_at(&bytes, self.end) {
                Ok(()) => {
                    self.sections.push(Section {
                        tag,
                        at: self.end,
                        length: bytes.len() as u64,
                        sum: Sha256::digest(&bytes).into(),
                    });
                    self.end += bytes.len() as u64;
                    return;
                }
                Err(error) => self.failure = Some(error),
            }
        }
        self.spilled.push((tag, bytes));
    }

    /// Writes the table and seals the file.
    pub(super) fn seal(mut self, format: u32) -> Sealed {
        let sealed = match (self.failure.take(), &self.file) {
            (None, Some(file)) => self.write_table(file, format),
            (failure, _) => Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into())),
        };
        Sealed {
            failure: sealed.err(),
            reader: Reader {
                file: self.file,
                sections: self.sections,
                spilled: self.spilled,
            },
        }
    }

    fn write_table(&self, file: &File, format: u32) -> io::Result<()> {
        let mut head = MAGIC.to_vec();
        head.extend(format.to_le_bytes());
        head.extend(OLDEST.to_le_bytes());
        head.extend(self.end.to_le_bytes());
        let mut table = (self.sections.len() as u32).to_le_bytes().to_vec();
        for section in &self.sections {
            table.extend(section.tag);
            table.extend(section.at.to_le_bytes());
            table.extend(section.length.to_le_bytes());
            table.extend(section.sum);
        }
        let sum = Sha256::new().chain_update(&head).chain_update(&table);
        table.extend(sum.finalize());
        file.write_all_at(&table, self.end)?;
        file.write_all_at(&head, 0)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        Ok(fcntl_add_seals(file, seals)?)
    }
}

/// A hand-over that is written.
pub(super) struct Sealed {
    /// Why the file is not whole; the reader has everything all the same.
    pub(super) failure: Option<io::Error>,
    pub(super) reader: Reader,
}

/// Reads sections.
pub(super) struct Reader {
    /// `None` where the kernel gave none; then there are no sections in it.
    file: Option<File>,
    sections: Vec<Section>,
    spilled: Vec<(Tag, Vec<u8>)>,
}

impl Reader {
    /// Reads head and table; the sections must be among `known`.
    ///
    /// # Errors
    /// The format, a section or a checksum is not one that this binary takes.
    pub(super) fn open(file: impl Into<OwnedFd>, known: &[Tag]) -> Result<Self, ReadError> {
        let file = File::from(file.into());
        let size = file.metadata()?.len();
        let mut head = [0; HEAD];
        if size < HEAD as u64 {
            return Err(ReadError::Damaged("it is shorter than its head"));
        }
        file.read_exact_at(&mut head, 0)?;
        let Some(rest) = head.strip_prefix(MAGIC) else {
            return Err(ReadError::Damaged("it does not begin as one"));
        };
        let format = u32_at(rest, 0);
        if !reads(format) {
            return Err(ReadError::Format(format));
        }
        let end = u64_at(rest, 8);
        let length = size.checked_sub(end).filter(|_| end >= HEAD as u64);
        let length = length.filter(|length| *length <= (4 + MAX_SECTIONS * ENTRY + 32) as u64);
        let length = length.ok_or(ReadError::Damaged("its table is elsewhere"))?;
        let mut table = vec![0; length as usize];
        file.read_exact_at(&mut table, end)?;
        let (table, sum) = table
            .split_last_chunk::<32>()
            .ok_or(ReadError::Damaged("its table is too short"))?;
        let computed = Sha256::new().chain_update(head).chain_update(table);
        if *computed.finalize() != *sum {
            return Err(ReadError::Damaged("the checksum of its table"));
        }
        let entries = table.get(4..).unwrap_or_default();
        if entries.len() % ENTRY != 0 || u32_at(table, 0) as usize != entries.len() / ENTRY {
            return Err(ReadError::Damaged("its table has another length"));
        }
        let mut sections = vec![];
        for entry in entries.chunks_exact(ENTRY) {
            let tag = [entry[0], entry[1], entry[2], entry[3]];
            if !known.contains(&tag) {
                return Err(ReadError::Unknown(name(tag)));
            }
            let (at, length) = (u64_at(entry, 4), u64_at(entry, 12));
            if at.checked_add(length).is_none_or(|after| after > end) {
                return Err(ReadError::Damaged("a section is outside of it"));
            }
            let mut sum = [0; 32];
            sum.copy_from_slice(&entry[20..]);
            sections.push(Section {
                tag,
                at,
                length,
                sum,
            });
        }
        Ok(Self {
            file: Some(file),
            sections,
            spilled: vec![],
        })
    }

    /// The sections of `tag`, in the order in which they were written.
    ///
    /// # Errors
    /// A checksum is wrong, or the file cannot be read.
    pub(super) fn all(&self, tag: Tag) -> Result<Vec<Vec<u8>>, ReadError> {
        let of_tag = self.sections.iter().filter(|section| section.tag == tag);
        let mut found = vec![];
        for (section, file) in of_tag.zip(std::iter::repeat(&self.file)) {
            let Some(file) = file else { break };
            let mut bytes = vec![0; section.length as usize];
            file.read_exact_at(&mut bytes, section.at)?;
            if *Sha256::digest(&bytes) != section.sum {
                return Err(ReadError::Damaged("the checksum of a section"));
            }
            found.push(bytes);
        }
        let spilled = self.spilled.iter().filter(|(of, _)| *of == tag);
        found.extend(spilled.map(|(_, bytes)| bytes.clone()));
        Ok(found)
    }

    /// The only section of `tag`.
    ///
    /// # Errors
    /// As [`all`](Self::all), or there is none.
    pub(super) fn one(&self, tag: Tag) -> Result<Vec<u8>, ReadError> {
        let found = self.all(tag)?.pop();
        found.ok_or_else(|| ReadError::Missing(name(tag)))
    }

    /// The file itself.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(File::as_fd)
    }
}

fn name(tag: Tag) -> String {
    String::from_utf8_lossy(&tag).into_owned()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    four.map_or(0, |four| u32::from_le_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    eight.map_or(0, |eight| u64::from_le_bytes(*eight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const KNOWN: [Tag; 2] = [*b"ONE ", *b"TWO "];

    fn written() -> Vec<u8> {
        let mut writer = Writer::into_file(tempfile::tempfile());
        writer.add(KNOWN[0], b"first".to_vec());
        writer.add(KNOWN[1], b"second".to_vec());
        writer.add(KNOWN[1], vec![]);
        // An ordinary file takes no seals, and is whole without them.
        let sealed = writer.seal(FORMAT);
        let file = sealed.reader.file.unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Reader, ReadError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Reader::open(file, &KNOWN)
    }

    #[test]
    fn sections_come_back_as_they_were_written() {
        let reader = open(&written()).unwrap();
        assert_eq!(reader.one(KNOWN[0]).unwrap(), b"first");
        assert_eq!(reader.all(KNOWN[1]).unwrap(), [b"second".to_vec(), vec![]]);
        assert!(matches!(reader.one(*b"NONE"), Err(ReadError::Missing(_))));
    }

    #[test]
    fn no_damaged_byte_and_no_shortened_file_is_taken() {
        let bytes = written();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let taken = open(&damaged).and_then(|reader| {
                reader.all(KNOWN[0])?;
                reader.all(KNOWN[1])
            });
            assert!(taken.is_err(), "byte {at}");
            let cut = open(&bytes[..at]).and_then(|reader| reader.all(KNOWN[0]));
            assert!(cut.is_err(), "{at} bytes");
        }
    }

    #[test]
    fn another_format_and_an_unknown_section_are_refused() {
        let mut bytes = written();
        bytes[8] = 9;
        assert!(matches!(open(&bytes), Err(ReadError::Format(9))));
        let mut writer = Writer::new();
        writer.add(*b"NEW ", b"what a later version adds".to_vec());
        let sealed = writer.seal(FORMAT);
        assert!(sealed.failure.is_none());
        let refused = Reader::open(sealed.reader.file.unwrap(), &KNOWN);
        assert!(matches!(refused, Err(ReadError::Unknown(name)) if name == "NEW "));
        assert_eq!(
            format_for(FORMAT + 3),
            Some(FORMAT),
            "the newest that both know"
        );
        assert_eq!(format_for(OLDEST - 1), None);
    }

    #[test]
    fn a_sealed_file_cannot_be_changed_by_who_has_it() {
        let sealed = Writer::new().seal(FORMAT);
        assert!(sealed.failure.is_none());
        let file = sealed.reader.file.unwrap();
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn what_a_full_file_has_no_room_for_is_kept_beside_it() {
        let mut writer = Writer::new();
        writer.add(KNOWN[0], b"fits".to_vec());
        // From here on the file takes nothing more, as where memory is short.
        let file = writer.file.as_ref().unwrap();
        fcntl_add_seals(file, SealFlags::GROW).unwrap();
        writer.add(KNOWN[1], b"too much".to_vec());
        writer.add(KNOWN[1], b"this too".to_vec());
        let sealed = writer.seal(FORMAT);
        assert!(sealed.failure.is_some());
        assert_eq!(sealed.reader.one(KNOWN[0]).unwrap(), b"fits");
        let all = sealed.reader.all(KNOWN[1]).unwrap();
        assert_eq!(all, [b"too much".to_vec(), b"this too".to_vec()]);
    }
}
