//! Commands of one step: what is said and kept beside the scripts.

use super::super::Incarnation;
use super::super::ownership::Key;
use super::{Redis, StoreError, read, server_error};
use redis::{Pipeline, Value};
use std::time::Instant;

/// Images that go in one pipeline.
const MAX_IMAGES: usize = 256;

impl Redis {
    /// Publishes a batch to the inbox of a node; how many listen there.
    ///
    /// # Errors
    /// Redis gave no answer: whether it was published is not known.
    pub async fn publish(&self, node: Incarnation, batch: &[u8]) -> Result<u64, StoreError> {
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(self.names.inbox(node)).arg(batch);
        read(self.ask(&cmd).await?)
    }

    /// Publishes batches to the inboxes of nodes in one go; how many listen to each.
    ///
    /// # Errors
    /// Redis gave no answer: which of them were published is not known.
    pub async fn publish_all(
        &self,
        batches: &[(Incarnation, &[u8])],
    ) -> Result<Vec<u64>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(batches.len());
        for (node, batch) in batches {
            let mut cmd = redis::cmd("PUBLISH");
            cmd.arg(self.names.inbox(*node)).arg(*batch);
            pipeline.add_command(cmd);
        }
        self.pipe(&pipeline, batches.len()).await
    }

    /// Keeps sealed revocations until their expiry, and drops those that have expired.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn revoke(&self, now: u64, sealed: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(sealed.len() + 1);
        let mut expired = redis::cmd("ZREMRANGEBYSCORE");
        expired.arg(self.names.revoked()).arg("-inf").arg(now);
        pipeline.add_command(expired);
        for (until, sealed) in sealed {
            let mut cmd = redis::cmd("ZADD");
            cmd.arg(self.names.revoked()).arg(until).arg(sealed);
            pipeline.add_command(cmd);
        }
        let _: Vec<u64> = self.pipe(&pipeline, sealed.len() + 1).await?;
        Ok(())
    }

    /// Revocations that have not expired.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn revoked(&self, now: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut cmd = redis::cmd("ZRANGE");
        cmd.arg(self.names.revoked())
            .arg(now)
            .arg("+inf")
            .arg("BYSCORE");
        read(self.ask(&cmd).await?)
    }

    /// Keeps sealed notes, and drops others.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn keep_notes(
        &self,
        set: &[(String, Vec<u8>)],
        gone: &[String],
    ) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(set.len() + gone.len());
        for field in gone {
            let mut cmd = redis::cmd("HDEL");
            cmd.arg(self.names.notes()).arg(field);
            pipeline.add_command(cmd);
        }
        for (field, sealed) in set {
            let mut cmd = redis::cmd("HSET");
            cmd.arg(self.names.notes()).arg(field).arg(sealed);
            pipeline.add_command(cmd);
        }
        let _: Vec<u64> = self.pipe(&pipeline, set.len() + gone.len()).await?;
        Ok(())
    }

    /// All notes.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn notes(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(self.names.notes());
        read(self.ask(&cmd).await?)
    }

    /// How often a node has beaten; `None`: it is buried.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn count(&self, node: Incarnation) -> Result<Option<u64>, StoreError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(self.names.nodes()).arg(node.to_string());
        read(self.ask(&cmd).await?)
    }

    /// The home of a room; `None`: it is nobody's.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn owner(&self, room: &str) -> Result<Option<Incarnation>, StoreError> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(self.names.room(room)).arg("o");
        let owner: Option<String> = read(self.ask(&cmd).await?)?;
        Ok(owner.and_then(|owner| Incarnation::parse(&owner)))
    }

    async fn pipe<T: redis::FromRedisValue>(
        &self,
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<T, StoreError> {
        let (mut connection, of) = self.connection().await?;
        let began = Instant::now();
        let answered = connection.send_packed_commands(pipeline, 0, count).await;
        self.seconds.observe(began.elapsed().as_secs_f64());
        let error = match answered {
            Ok(answers) => match answers.iter().find_map(server_error) {
                None => return read(Value::Array(answers)),
                Some(error) => error,
            },
            Err(error) => error,
        };
        self.give_up(of, &error).await;
        Err(error.into())
    }

    /// Says something of a node that others read, for a minute.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn describe(&self, node: Incarnation, sealed: &[u8]) -> Result<(), StoreError> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(self.names.node(node)).arg(sealed);
        cmd.arg("PX").arg(60_000);
        read(self.ask(&cmd).await?)
    }

    /// What a node says of itself.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn description(&self, node: Incarnation) -> Result<Option<Vec<u8>>, StoreError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.names.node(node));
        read(self.ask(&cmd).await?)
    }

    /// Keeps images of rooms for a minute.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn keep_images(&self, images: &[(Key, Vec<u8>)]) -> Result<(), StoreError> {
        for images in images.chunks(MAX_IMAGES) {
            let mut pipeline = Pipeline::with_capacity(images.len());
            for (room, sealed) in images {
                let mut cmd = redis::cmd("SET");
                cmd.arg(self.names.image(room)).arg(sealed);
                cmd.arg("PX").arg(60_000);
                pipeline.add_command(cmd);
            }
            let _: Vec<Value> = self.pipe(&pipeline, images.len()).await?;
        }
        Ok(())
    }

    /// Takes a room's image: what is kept is returned and removed.
    ///
    /// # Errors
    /// Redis gave no answer.
    pub async fn image(&self, room: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.names.image(room);
        let mut cmd = redis::cmd("GET");
        cmd.arg(&key);
        let kept = read(self.ask(&cmd).await?)?;
        let mut gone = redis::cmd("DEL");
        gone.arg(key);
        self.ask(&gone).await?;
        Ok(kept)
    }
}
