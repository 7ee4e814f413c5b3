//! Questions to other nodes: each waits for one answer, and is forgotten when nobody waits any more.

use super::super::Incarnation;
use super::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// Questions that wait at once; with more, nobody is asked.
const MAX_QUESTIONS: usize = 16_384;

/// Questions by number.
#[derive(Debug, Default)]
pub(super) struct Questions {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, (Incarnation, oneshot::Sender<String>)>>,
}

/// One question; dropping it forgets it.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    questions: &'a Questions,
    pub(super) id: u64,
    answer: oneshot::Receiver<String>,
}

impl Questions {
    /// Expects an answer of a node.
    pub(super) fn expect(&self, of: Incarnation) -> Option<Waiting<'_>> {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= MAX_QUESTIONS {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        waiting.insert(id, (of, sender));
        Some(Waiting {
            questions: self,
            id,
            answer,
        })
    }

    /// A node has answered.
    pub(super) fn answered(&self, by: Incarnation, id: u64, answer: String) {
        let mut waiting = lock(&self.waiting);
        if waiting.get(&id).is_some_and(|(of, _)| *of == by)
            && let Some((_, sender)) = waiting.remove(&id)
        {
            let _ = sender.send(answer);
        }
    }

    /// What was on the way to and from a node is lost.
    pub(super) fn lost(&self, node: Incarnation) {
        lock(&self.waiting).retain(|_, (of, _)| *of != node);
    }
}

impl Waiting<'_> {
    /// The answer; `None` once it is lost.
    pub(super) async fn answer(&mut self) -> Option<String> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.questions.waiting).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_taken_from_whom_was_asked_and_once() {
        let questions = Questions::default();
        let (a, b) = (Incarnation::from_bits(1), Incarnation::from_bits(2));
        let mut asked = questions.expect(a).unwrap();
        questions.answered(b, asked.id, "of another".into());
        questions.answered(a, asked.id, "yes".into());
        questions.answered(a, asked.id, "again".into());
        assert_eq!(asked.answer().await.as_deref(), Some("yes"));
        let mut lost = questions.expect(b).unwrap();
        questions.lost(b);
        assert_eq!(lost.answer().await, None);
        drop(questions.expect(a));
        assert!(lock(&questions.waiting).is_empty());
    }
}
