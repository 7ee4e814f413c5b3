//! What Redis keeps of rooms, made of the hub's state and read into it again.

use super::super::node::{IMAGE, PEOPLE, Record, SETTINGS};
use crate::signal::Driver;
use crate::signal::hub::{MemberRecord, RoomImage, SettingsRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// A room's settings with its name.
#[derive(Serialize, Deserialize)]
struct Named {
    room: Arc<str>,
    settings: SettingsRecord,
}

/// What has changed of rooms; of those that this node gives up, everything.
pub(super) fn records(driver: &Driver, fresh: Vec<Arc<str>>, gives: bool) -> Vec<Record> {
    driver.with_hub(|hub, now, _| {
        let mut changes = hub.take_changes();
        for room in fresh {
            changes.entry(room).or_default();
        }
        let field = |value: Option<Vec<u8>>, name: String| (name, value);
        (changes.into_iter())
            .map(|(room, change)| {
                let mut fields = vec![];
                if *room == *PEOPLE {
                    let image = gives.then(|| hub.people_image(now)).flatten();
                    let image = image.and_then(|image| serde_json::to_vec(&image).ok());
                    let exists = !gives || image.is_some();
                    if image.is_some() {
                        let named = serde_json::to_vec(&json!({ "room": room })).ok();
                        fields = vec![(SETTINGS.to_owned(), named), (IMAGE.to_owned(), image)];
                    }
                    return Record {
                        room,
                        exists,
                        fields,
                    };
                }
                let exists = hub.has_room(&room);
                if change.settings {
                    let settings = hub.settings_record(&room).and_then(|settings| {
                        let room = Arc::clone(&room);
                        serde_json::to_vec(&Named { room, settings }).ok()
                    });
                    fields.push(field(settings, SETTINGS.to_owned()));
                }
                for peer in change.members {
                    let record = hub.member_record(now, &room, peer);
                    let record = record.and_then(|record| serde_json::to_vec(&record).ok());
                    fields.push(field(record, format!("m:{peer}")));
                }
                if gives && exists {
                    let image = hub.image(now, &room);
                    let image = image.and_then(|image| serde_json::to_vec(&image).ok());
                    fields.push(field(image, IMAGE.to_owned()));
                }
                Record {
                    room,
                    exists,
                    fields,
                }
            })
            .collect()
    })
}

/// Makes a room of what its last home has left.
pub(super) fn restore(driver: &Driver, image: Option<&[u8]>, settings: &[u8], members: &[Vec<u8>]) {
    let image = image.and_then(|image| serde_json::from_slice::<RoomImage>(image).ok());
    if serde_json::from_slice::<Value>(settings).is_ok_and(|settings| settings["room"] == PEOPLE) {
        let restored = image.map(|image| {
            driver.with_hub(|hub, now, effects| hub.restore_room(now, image, effects))
        });
        if let Some(Err(error)) = restored {
            tracing::debug!("who was registered at another node is not taken over: {error}");
        }
        return;
    }
    let Ok(Named { room, settings }) = serde_json::from_slice(settings) else {
        return;
    };
    let members: Vec<MemberRecord> = (members.iter())
        .filter_map(|member| serde_json::from_slice(member).ok())
        .collect();
    let restored = driver.with_hub(|hub, now, effects| {
        if let Some(image) = image
            && hub.restore_room(now, image, effects).is_ok()
        {
            return Ok(());
        }
        hub.restore_records(now, settings, members, effects)
    });
    if let Err(error) = restored {
        tracing::debug!(
            room = &*room,
            "a room that another node had is not taken over: {error}"
        );
    }
}
