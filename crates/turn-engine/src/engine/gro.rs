//! Datagrams that came together, and the runs of like ones among them that go the same way.
//!
//! What a run leads to is looked up once, and it leaves as it came: together.

/// Datagrams of one sender in the order in which they were sent, back to back: all of one length
/// but the last, which may be shorter.
#[derive(Debug, Clone, Copy)]
pub struct GroBatch<'a> {
    bytes: &'a [u8],
    segment: usize,
    ended: bool,
}

impl<'a> GroBatch<'a> {
    /// Datagrams of `segment` bytes each. Without any bytes, it is one empty datagram.
    pub fn new(bytes: &'a [u8], segment: usize) -> Self {
        Self {
            bytes,
            segment: segment.clamp(1, bytes.len().max(1)),
            ended: false,
        }
    }

    /// How many datagrams there are.
    pub fn count(&self) -> usize {
        match self.ended {
            true => 0,
            false => self.bytes.len().div_ceil(self.segment).max(1),
        }
    }

    /// Takes the next datagram off the front, and with it those behind it that are as long and
    /// `alike`.
    pub fn next_run(&mut self, alike: impl Fn(&[u8], &[u8]) -> bool) -> Option<PayloadRun<'a>> {
        if self.ended {
            return None;
        }
        let stride = self.segment.min(self.bytes.len());
        let (first, rest) = self.bytes.split_at(stride);
        let others = rest.chunks_exact(stride.max(1));
        let count = 1 + others.take_while(|other| alike(first, other)).count();
        let (bytes, rest) = self.bytes.split_at(count * stride);
        self.bytes = rest;
        self.ended = rest.is_empty();
        Some(PayloadRun {
            bytes,
            stride,
            start: 0,
            length: stride,
            count,
        })
    }
}

impl<'a> From<&'a [u8]> for GroBatch<'a> {
    fn from(datagram: &'a [u8]) -> Self {
        Self::new(datagram, datagram.len())
    }
}

/// One or more payloads of one length, each in a datagram of its own, that go the same way.
#[derive(Debug, Clone, Copy)]
pub struct PayloadRun<'a> {
    /// As many strides as there are payloads.
    bytes: &'a [u8],
    stride: usize,
    /// Where in its stride a payload starts.
    start: usize,
    length: usize,
    count: usize,
}

impl<'a> PayloadRun<'a> {
    /// How many payloads there are: one at least.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of each payload.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The payloads in their order.
    pub fn payloads(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let run = *self;
        (0..run.count).map(move |index| &run.bytes[index * run.stride + run.start..][..run.length])
    }

    /// The first payload.
    pub fn first(&self) -> &'a [u8] {
        &self.bytes[self.start..][..self.length]
    }

    /// The first `count` payloads, if there are any, and the others, if there are.
    pub fn split_at(self, count: usize) -> (Option<Self>, Option<Self>) {
        let count = count.min(self.count);
        let (front, back) = self.bytes.split_at(count * self.stride);
        let part = |bytes, count| {
            (count > 0).then_some(Self {
                bytes,
                count,
                ..self
            })
        };
        (part(front, count), part(back, self.count - count))
    }

    /// `count` payloads of one length, which `bytes` holds back to back.
    pub fn back_to_back(bytes: &'a [u8], count: usize) -> Self {
        let length = bytes.len() / count;
        Self {
            bytes,
            stride: length,
            start: 0,
            length,
            count,
        }
    }

    /// The same payloads, one by one.
    pub(super) fn singles(&self) -> impl Iterator<Item = Self> + use<'a> {
        self.payloads().map(Self::from)
    }

    /// Of each payload only what begins at `start` and is `length` bytes long.
    pub fn narrow(self, start: usize, length: usize) -> Self {
        Self {
            start: self.start + start,
            length,
            ..self
        }
    }
}

impl<'a> From<&'a [u8]> for PayloadRun<'a> {
    fn from(payload: &'a [u8]) -> Self {
        Self::back_to_back(payload, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all<'a>(run: &PayloadRun<'a>) -> Vec<&'a [u8]> {
        run.payloads().collect()
    }

    proptest! {
        #[test]
        fn runs_hold_every_datagram_once_and_in_order(
            bytes in prop::collection::vec(0_u8..2, 0..60),
            segment in 0_usize..70,
        ) {
            let mut gro_batch = GroBatch::new(&bytes, segment);
            let expected: Vec<&[u8]> = match bytes.len() {
                0 => vec![&[]],
                _ => bytes.chunks(segment.max(1)).collect(),
            };
            prop_assert_eq!(gro_batch.count(), expected.len());
            let mut runs = vec![];
            while let Some(run) = gro_batch.next_run(|a, b| a.first() == b.first()) {
                runs.push(run);
            }
            prop_assert_eq!(runs.iter().flat_map(all).collect::<Vec<_>>(), expected);
            for run in &runs {
                prop_assert!(run.payloads().all(|p| p.first() == run.first().first()));
                prop_assert!(run.payloads().all(|p| p.len() == run.length()));
                prop_assert_eq!(run.payloads().count(), run.count());
            }
            // Neighbours would have been one run if they could.
            for pair in runs.windows(2) {
                let differ = pair[0].first().first() != pair[1].first().first();
                prop_assert!(differ || pair[0].length() != pair[1].length());
            }
        }
    }

    #[test]
    fn a_run_splits_where_it_is_told_to() {
        let bytes: Vec<u8> = (0..12).collect();
        let run = GroBatch::new(&bytes, 4).next_run(|_, _| true).unwrap();
        let run = run.narrow(1, 2);
        assert_eq!(all(&run), [[1, 2], [5, 6], [9, 10]]);
        let (front, back) = run.split_at(2);
        assert_eq!(all(&front.unwrap()), [[1, 2], [5, 6]]);
        assert_eq!(all(&back.unwrap()), [[9, 10]]);
        let (front, back) = run.split_at(7);
        assert_eq!((front.unwrap().count(), back.is_none()), (3, true));
        assert!(run.split_at(0).0.is_none());
    }
}
